// OpenAI's SDK for JavaScript, which insists on TLS for what is live. It plays 24 kHz PCM and sends
// recordings, and writes every event and every answer.
//
// openai_js.mjs BASE_URL KEY PCM WAV, in the folder that has the SDK

import { createReadStream, readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(`${process.cwd()}/`);
const { OpenAI, toFile } = require("openai");
const { OpenAIRealtimeWS } = require("openai/realtime/ws");

const [baseURL, apiKey, pcmPath, wavPath] = process.argv.slice(2);
const FRAME_BYTES = 4800;
const COMPLETED = "conversation.item.input_audio_transcription.completed";

const client = new OpenAI({ apiKey, baseURL, maxRetries: 0 });
const report = (told) => console.log(JSON.stringify(told));

async function converse() {
  const realtime = await OpenAIRealtimeWS.create(client, { intent: "transcription" });
  const closed = new Promise((resolve) => realtime.socket.on("close", resolve));
  realtime.on("event", (event) => {
    report(event);
    if (event.type === "session.updated") play(realtime);
    if (event.type === COMPLETED) realtime.close();
  });
  realtime.on("error", (error) => {
    report({ type: "error", message: String(error) });
    realtime.close();
  });
  realtime.socket.on("open", () => {
    const input = {
      format: { type: "audio/pcm", rate: 24000 },
      transcription: { model: "gpt-4o-transcribe", language: "en" },
      turn_detection: null,
    };
    realtime.send({ type: "session.update", session: { type: "transcription", audio: { input } } });
  });
  await closed;
}

function play(realtime) {
  const audio = readFileSync(pcmPath);
  for (let start = 0; start < audio.length; start += FRAME_BYTES) {
    const frame = audio.subarray(start, start + FRAME_BYTES).toString("base64");
    realtime.send({ type: "input_audio_buffer.append", audio: frame });
  }
  realtime.send({ type: "input_audio_buffer.commit" });
}

const transcribe = (fields) =>
  client.audio.transcriptions.create({
    file: createReadStream(wavPath),
    model: "whisper-1",
    ...fields,
  });

async function answered(what, fields) {
  report({ type: "answer", what, answer: await transcribe(fields) });
}

async function streamed() {
  for await (const event of await transcribe({ stream: true })) report(event);
}

async function refused() {
  const file = await toFile(Buffer.from("this is no audio".repeat(1000)), "audio.wav");
  try {
    await transcribe({ file });
  } catch ({ status, error }) {
    report({ type: "refusal", status, error });
  }
}

async function listed() {
  for await (const model of client.models.list()) report({ type: "model", model });
}

await Promise.all([
  converse(),
  answered("json", {}),
  ...["text", "srt", "vtt"].map((form) => answered(form, { response_format: form })),
  answered("verbose_json", {
    response_format: "verbose_json",
    timestamp_granularities: ["word", "segment"],
  }),
  streamed(),
  refused(),
  listed(),
]);
