// Plays 24 kHz PCM to OpenAI's SDK for JavaScript, which insists on TLS, and writes every event.
//
// openai_realtime.mjs BASE_URL KEY AUDIO, in the folder that has the SDK

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(`${process.cwd()}/`);
const { OpenAI } = require("openai");
const { OpenAIRealtimeWS } = require("openai/realtime/ws");

const [baseURL, apiKey, path] = process.argv.slice(2);
const FRAME_BYTES = 4800;

const client = new OpenAI({ apiKey, baseURL, maxRetries: 0 });
const realtime = await OpenAIRealtimeWS.create(client, { intent: "transcription" });
const completed = "conversation.item.input_audio_transcription.completed";

realtime.on("event", (event) => {
  console.log(JSON.stringify(event));
  if (event.type === "session.updated") play();
  if (event.type === completed) realtime.close();
});
realtime.on("error", (error) => {
  console.log(JSON.stringify({ type: "error", message: String(error) }));
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

function play() {
  const audio = readFileSync(path);
  for (let start = 0; start < audio.length; start += FRAME_BYTES) {
    const frame = audio.subarray(start, start + FRAME_BYTES).toString("base64");
    realtime.send({ type: "input_audio_buffer.append", audio: frame });
  }
  realtime.send({ type: "input_audio_buffer.commit" });
}
