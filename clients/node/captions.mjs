// Captions of a WAV file, live: node captions.mjs RECORDING.wav
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const MESSAGE_S = 0.1;
const RETRY_MS = 500;
const BROKEN = new Set([
  grpc.status.UNAVAILABLE,
  grpc.status.INTERNAL,
  grpc.status.UNKNOWN,
  grpc.status.CANCELLED,
]);

const { values: args, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    server: { type: "string", default: "127.0.0.1:50050" },
    language: { type: "string", default: "" },
    key: { type: "string", default: "" },
  },
});
if (positionals.length !== 1) {
  console.error("usage: node captions.mjs [--server HOST:PORT] [--language CODE] [--key KEY] RECORDING.wav");
  process.exit(2);
}

const contract = loadSync("voxmesh/gateway/v1/gateway.proto", {
  includeDirs: [fileURLToPath(new URL("../../proto", import.meta.url))],
  keepCase: true,
  longs: Number,
  defaults: true,
  oneofs: true,
});
const { GatewayService } = grpc.loadPackageDefinition(contract).voxmesh.gateway.v1;

// The gateway reads the header itself; here it only says how fast the bytes are spoken.
const recording = readFileSync(positionals[0]);
const bytesPerS = recording.readUInt32LE(28);
const messageBytes = Math.round(MESSAGE_S * bytesPerS);

// What is kept from one call to the next.
const session = { token: "", numWords: 0, patienceMs: 0, startedAt: 0, brokeAt: 0 };

/** Sends the audio behind a position as it is spoken, then says that it is complete. */
async function speak(call, position) {
  session.startedAt ||= Date.now();
  while (position < recording.length) {
    const piece = recording.subarray(position, position + messageBytes);
    position += piece.length;
    const spokenAt = session.startedAt + (1000 * position) / bytesPerS;
    await sleep(Math.max(0, spokenAt - Date.now()));
    if (!call.writable) return;
    if (!call.write({ audio: piece })) await once(call, "drain");
  }
  call.end({ finish: {} });
}

/** Prints the words that are final and, to a terminal, what may still change. */
function show({ words, tail }) {
  if (process.stderr.isTTY) process.stderr.write("\x1b[J");
  process.stdout.write(words.map((word) => word.text).join(""));
  if (process.stderr.isTTY) process.stderr.write(`\x1b7\x1b[2m${tail}\x1b[0m\x1b8`);
}

/** Makes one call; resolves when the gateway has said everything. */
function converse(client) {
  return new Promise((resolve, reject) => {
    const metadata = new grpc.Metadata();
    if (args.key) metadata.set("authorization", `Bearer ${args.key}`);
    const call = client.Converse(metadata);
    call.on("data", (response) => {
      switch (response.event) {
        case "opened":
          session.token = response.opened.resume_token;
          session.patienceMs = 1000 * response.opened.resume_within.seconds;
          session.brokeAt = 0;
          speak(call, response.opened.received_bytes).catch(reject);
          break;
        case "captions":
          session.numWords += response.captions.words.length;
          show(response.captions);
          break;
      }
    });
    call.on("error", reject);
    call.on("status", ({ code }) => code === grpc.status.OK && resolve());
    if (session.token) {
      call.write({ resume: { token: session.token, num_words: session.numWords } });
    } else {
      call.write({ open: { language_code: args.language, resumable: true } });
    }
  });
}

const client = new GatewayService(args.server, grpc.credentials.createInsecure());
for (;;) {
  try {
    await converse(client);
    break;
  } catch (error) {
    const ended = error.metadata?.get("grpc-status-details-bin").length;
    if (ended || !BROKEN.has(error.code) || !session.token) throw error;
    session.brokeAt ||= Date.now();
    if (Date.now() > session.brokeAt + session.patienceMs) throw error;
    await sleep(RETRY_MS);
  }
}
client.close();
process.stdout.write("\n");
