// Reads one base64 bundle a line; answers 1 (accepted) or 0 a line. @sigstore/verify with one key and no thresholds.
import { createPublicKey } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(import.meta.url);
const { bundleFromJSON } = require("@sigstore/bundle");
const { Verifier, toSignedEntity, toTrustMaterial } = require("@sigstore/verify");

const publicKey = createPublicKey(readFileSync(process.argv[2]));
const none = { certificateAuthorities: [], timestampAuthorities: [], tlogs: [], ctlogs: [] };
// Any hint finds the one key: which keys are trusted is the reader's decision, as it is ours.
const material = toTrustMaterial(none, () => ({ publicKey, validFor: () => true }));
const verifier = new Verifier(material, { tlogThreshold: 0, ctlogThreshold: 0, timestampThreshold: 0, tsaThreshold: 0 });

for await (const line of createInterface({ input: process.stdin })) {
  let accepted = "1";
  try {
    const text = Buffer.from(line, "base64").toString("utf8");
    verifier.verify(toSignedEntity(bundleFromJSON(JSON.parse(text))));
  } catch {
    accepted = "0";
  }
  console.log(accepted);
}
