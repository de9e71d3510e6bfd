// Deepgram's SDK for JavaScript, 3 and 4: plays PCM as fast as it can, then recordings.
//
// deepgram_js_old.mjs URL PCM WAV, in the folder that has the SDK. Where there is a global
// WebSocket, as in browsers, the SDK uses it and presents its key as a subprotocol.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(`${process.cwd()}/`);
const { createClient, LiveTranscriptionEvents } = require("@deepgram/sdk");

const [url, pcmPath, wavPath] = process.argv.slice(2);
const FRAME_BYTES = 3200;

const report = (what, told = {}) => console.log(JSON.stringify({ what, ...told }));
const client = createClient("secret", { global: { url } });
report("global", { native: typeof WebSocket !== "undefined" });

const connection = client.listen.live({
  model: "nova-2",
  language: "en",
  encoding: "linear16",
  sample_rate: 16000,
  interim_results: true,
  vad_events: true,
  utterance_end_ms: 1000,
  keywords: ["epoch:2"],
});
const { Open, Close, Error: Failed, Unhandled, ...kinds } = LiveTranscriptionEvents;
for (const kind of Object.values(kinds)) {
  connection.on(kind, (message) => report("message", { message }));
}
const opened = new Promise((resolve) => connection.on(Open, resolve));
const ended = new Promise((resolve) => {
  connection.on(Close, ({ code, reason }) => {
    report("close", { code, reason });
    resolve();
  });
});
connection.on(Failed, (error) => report("error", { message: String(error?.message) }));
connection.on(Unhandled, (message) => report("unhandled", { message }));

await opened;
report("open");
connection.keepAlive();
const pcm = readFileSync(pcmPath);
for (let start = 0; start < pcm.length; start += FRAME_BYTES) {
  connection.send(pcm.subarray(start, start + FRAME_BYTES));
}
connection.configure({ numerals: true });
connection.finalize();
connection.requestClose();
await ended;

const asked = { model: "nova-2", smart_format: true, utterances: true };
const recordings = client.listen.prerecorded;
report("recording", await recordings.transcribeFile(readFileSync(wavPath), asked));
const garbage = Buffer.from("this is no audio".repeat(1000));
const { error } = await recordings.transcribeFile(garbage, asked);
report("garbage", { status: error?.status, message: error?.message });
process.exit(0);
