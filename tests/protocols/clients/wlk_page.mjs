// WhisperLiveKit's web page, as it is, in a browser without a screen, whose microphone hears PCM.
//
// wlk_page.mjs WEB ADDRESS PCM, in the folder that has jsdom: WEB is the folder of the page, ADDRESS
// what its user enters as that of the server, PCM 16 kHz audio. Writes what the transcript shows,
// whenever that changes.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { runInNewContext } from "node:vm";

const require = createRequire(`${process.cwd()}/`);
const { JSDOM, ResourceLoader, VirtualConsole } = require("jsdom");

const [web, address, pcmPath] = process.argv.slice(2);
const url = "http://localhost/";
const RATE_HZ = 48000; // of the microphone: three times that of the PCM
const BLOCK = 128; // samples that an audio worklet is called with
const SPEED = 4;
const TICK_MS = 20;

const report = (what, told = {}) => console.log(JSON.stringify({ what, ...told }));
const asset = (name) => readFileSync(join(web, new URL(name, url).pathname.replace(/^\/web/, "")));

class Files extends ResourceLoader {
  fetch(name) {
    return Promise.resolve(asset(name));
  }
}

// What browsers have and jsdom has not: devices, Web Audio, workers.

const processors = new Map();
let microphone;

class AudioWorkletNode {
  constructor(_context, name) {
    this.port = {};
    const Processor = processors.get(name);
    this.processor = new Processor();
    this.processor.port = { postMessage: (data) => this.port.onmessage?.({ data }) };
  }
  disconnect() {}
}

class AudioContext {
  sampleRate = RATE_HZ;
  state = "running";
  audioWorklet = {
    addModule: async (name) =>
      runInNewContext(asset(name), {
        AudioWorkletProcessor: class {},
        Float32Array,
        registerProcessor: (kind, processor) => processors.set(kind, processor),
      }),
  };
  createAnalyser() {
    return { frequencyBinCount: 0, getByteTimeDomainData() {} };
  }
  createMediaStreamSource() {
    return {
      connect: (node) => (microphone = node.processor ?? microphone),
      disconnect: () => (microphone = undefined),
    };
  }
  async close() {}
}

function worker(window) {
  return class Worker {
    constructor(name) {
      const postMessage = (data) => this.onmessage?.({ data });
      this.self = { postMessage };
      // Its buffers are to be the page's: it hands them to the page's WebSocket.
      const { ArrayBuffer, DataView, Float32Array } = window;
      runInNewContext(asset(name), { self: this.self, ArrayBuffer, DataView, Float32Array });
    }
    postMessage(data) {
      this.self.onmessage({ data });
    }
    terminate() {
      this.onmessage = null;
    }
  };
}

function furnish(window) {
  const nothing = () => {};
  window.HTMLCanvasElement.prototype.getContext = () => new Proxy({}, { get: () => nothing });
  window.Element.prototype.scrollTo = nothing;
  Object.assign(window, { AudioContext, AudioWorkletNode, Worker: worker(window) });
  window.navigator.mediaDevices = {
    addEventListener: nothing,
    enumerateDevices: async () => [{ kind: "audioinput", deviceId: "1", label: "Microphone" }],
    getUserMedia: async () => ({ getTracks: () => [] }),
  };
}

const complaints = new VirtualConsole();
for (const kind of ["jsdomError", "error", "warn"]) {
  complaints.on(kind, (...told) => report("complaint", { told: told.map(String) }));
}
const { window } = new JSDOM(asset("/live_transcription.html"), {
  url,
  runScripts: "dangerously",
  pretendToBeVisual: true,
  resources: new Files(),
  virtualConsole: complaints,
  beforeParse: furnish,
});
await new Promise((resolve) => window.addEventListener("load", resolve));

const { document } = window;
const transcript = document.getElementById("linesTranscript");
const status = document.getElementById("status");
const button = document.getElementById("recordButton");
const server = document.getElementById("websocketInput");

function shown() {
  const lines = [...transcript.querySelectorAll(".textcontent")].map((line) => line.textContent);
  report("shown", { text: lines.join(" ").trim(), all: transcript.textContent.trim() });
}

const changed = (node) =>
  new Promise((resolve) => {
    const observer = new window.MutationObserver(() => (observer.disconnect(), resolve()));
    observer.observe(node, { childList: true, characterData: true, subtree: true, attributes: true });
  });

async function until(node, reached) {
  while (!reached()) await changed(node);
}

async function speak(samples) {
  const perTick = Math.round((RATE_HZ * SPEED * TICK_MS) / 1000 / BLOCK) * BLOCK;
  for (let start = 0; start < samples.length; start += perTick) {
    for (let at = start; at < Math.min(start + perTick, samples.length); at += BLOCK) {
      microphone.process([[samples.subarray(at, at + BLOCK)]]);
    }
    await new Promise((resolve) => setTimeout(resolve, TICK_MS));
  }
}

const pcm = readFileSync(pcmPath);
const spoken = new Float32Array((pcm.length / 2) * 3);
spoken.forEach((_, at) => (spoken[at] = pcm.readInt16LE(2 * Math.floor(at / 3)) / 32768));

new window.MutationObserver(shown).observe(transcript, { childList: true });
server.value = address;
server.dispatchEvent(new window.Event("change"));
button.click();
await until(button, () => button.classList.contains("recording"));
await speak(spoken);
button.click();
await until(status, () => status.textContent.startsWith("Finished"));
shown();
report("status", { text: status.textContent });
process.exit(0);
