// Deepgram's SDK for JavaScript, 5, with a temporary token.
//
// deepgram_grant.mjs URL KEY WAV, in the folder that has the SDK

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(`${process.cwd()}/`);
const { DeepgramClient } = require("@deepgram/sdk");

const [url, apiKey, wavPath] = process.argv.slice(2);
const ws = url.replace("http", "ws");
const environment = { base: url, production: ws, agent: ws, agentRest: url };
const report = (what, told) => console.log(JSON.stringify({ what, ...told }));

const granted = await new DeepgramClient({ apiKey, environment }).auth.v1.tokens.grant();
report("granted", { answer: granted });
const client = new DeepgramClient({ accessToken: granted.access_token, environment });
const asked = { model: "nova-3", smart_format: true };
const answer = await client.listen.v1.media.transcribeFile(readFileSync(wavPath), asked);
report("recording", { answer });
process.exit(0);
