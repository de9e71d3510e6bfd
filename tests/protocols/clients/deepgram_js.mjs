// Deepgram's SDK for JavaScript, 5: plays PCM as fast as it can, then recordings.
//
// deepgram_js.mjs URL PCM WAV, in the folder that has the SDK

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(`${process.cwd()}/`);
const { DeepgramClient } = require("@deepgram/sdk");

const [url, pcmPath, wavPath] = process.argv.slice(2);
const FRAME_BYTES = 3200;
const RECONNECTS_WITHIN_MS = 6000;

const report = (what, told = {}) => console.log(JSON.stringify({ what, ...told }));
const ws = url.replace("http", "ws");
const environment = { base: url, production: ws, agent: ws, agentRest: url };
const client = new DeepgramClient({ apiKey: "secret", environment });

const connection = await client.listen.v1.connect({
  model: "nova-3",
  language: "en",
  encoding: "linear16",
  sample_rate: 16000,
  interim_results: "true",
  vad_events: "true",
  utterance_end_ms: 1000,
  keyterm: ["epoch", "belief"],
});
let opened = 0;
const ended = new Promise((resolve) => {
  connection.on("open", () => report("open", { number: ++opened }));
  connection.on("message", (message) => report("message", { message }));
  connection.on("error", (error) => report("error", { message: String(error) }));
  connection.on("close", ({ code, reason }) => {
    report("close", { code, reason });
    resolve();
  });
});
connection.connect();
await connection.waitForOpen();
connection.sendKeepAlive({ type: "KeepAlive" });
const pcm = readFileSync(pcmPath);
for (let start = 0; start < pcm.length; start += FRAME_BYTES) {
  connection.sendMedia(pcm.subarray(start, start + FRAME_BYTES));
}
connection.sendFinalize({ type: "Finalize" });
connection.sendCloseStream({ type: "CloseStream" });
await ended;

async function reconnects() {
  await new Promise((resolve) => setTimeout(resolve, RECONNECTS_WITHIN_MS));
  report("counted", { opened });
  connection.close();
}

async function recordings() {
  const media = client.listen.v1.media;
  const asked = { model: "nova-3", smart_format: true, utterances: true };
  report("recording", { answer: await media.transcribeFile(readFileSync(wavPath), asked) });
  const garbage = Buffer.from("this is no audio".repeat(1000));
  try {
    await media.transcribeFile(garbage, asked, { maxRetries: 0 });
  } catch (error) {
    report("garbage", { status: error.statusCode, body: error.body });
  }
}

await Promise.all([reconnects(), recordings()]);
process.exit(0);
