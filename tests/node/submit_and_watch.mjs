// A client in another language, from the committed protos alone: uploads a model, submits an audit, watches it to its end.
//
//   node submit_and_watch.mjs ADDRESS CA CERTIFICATE KEY MODEL_DIR [CHECK] [PARAMETERS_JSON]
//
// Prints one JSON line for what it did and one for each event; exits 0 when the audit completed, 2 when it ended
// otherwise, 1 on an error of this script or a refusal.

import { createHash, randomBytes, randomUUID } from 'node:crypto'
import { readFileSync, readdirSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

import grpc from '@grpc/grpc-js'
import protoLoader from '@grpc/proto-loader'

const HERE = path.dirname(fileURLToPath(import.meta.url))
const PROTOS = path.join(HERE, '..', '..', 'protos')
const BATCH_BYTES = 3 * 2 ** 20
const DEADLINE_MS = 30_000
const SENT = /^(config\.json|tokenizer\.json|tokenizer_config\.json|vocab\.json|merges\.txt|.*\.safetensors)$/

const [address, ca, certificate, key, modelDir, check = 'clusterability', parameters = '{}'] = process.argv.slice(2)
if (!modelDir) {
  console.error('usage: submit_and_watch.mjs ADDRESS CA CERTIFICATE KEY MODEL_DIR [CHECK] [PARAMETERS_JSON]')
  process.exit(1)
}

function say(value) {
  process.stdout.write(`${JSON.stringify(value)}\n`)
}

function connect() {
  const files = ['blobs', 'models', 'audits'].map((name) => `assay/api/v1/${name}.proto`)
  // keepCase off: fields read as request_id -> requestId, as Node programs write them; longs as text, they may exceed 2^53.
  const definition = protoLoader.loadSync(files, { includeDirs: [PROTOS], longs: String, enums: String, oneofs: true })
  const api = grpc.loadPackageDefinition(definition).assay.api.v1
  const credentials = grpc.credentials.createSsl(readFileSync(ca), readFileSync(key), readFileSync(certificate))
  return Object.fromEntries(['Blobs', 'Models', 'Audits'].map((name) => [name, new api[name](address, credentials)]))
}

function call(service, method, request) {
  return new Promise((resolve, reject) => {
    const deadline = Date.now() + DEADLINE_MS
    service[method](request, { deadline }, (error, answer) => (error ? reject(error) : resolve(answer)))
  })
}

function digestOf(data) {
  return { sha256: createHash('sha256').update(data).digest('hex'), size: String(data.length) }
}

// The manifest is canonical JSON: sorted keys, no blanks, files sorted by path.
function readModel() {
  const files = readdirSync(modelDir)
    .filter((name) => SENT.test(name))
    .sort()
    .map((name) => ({ name, data: readFileSync(path.join(modelDir, name)) }))
  const entries = files.map(({ name, data }) => ({ path: name, sha256: digestOf(data).sha256, size: data.length }))
  const manifest = Buffer.from(JSON.stringify({ files: entries, format: 'assay-manifest/v1' }))
  return { manifest, blobs: [...files.map(({ data }) => data), manifest] }
}

async function upload(blobs, datas) {
  const { missing = [] } = await call(blobs, 'FindMissingBlobs', { digests: datas.map(digestOf) })
  const wanted = new Set(missing.map(({ sha256 }) => sha256))
  const batch = datas.map((data) => ({ digest: digestOf(data), data })).filter(({ digest }) => wanted.has(digest.sha256))
  const bytes = batch.reduce((sum, { data }) => sum + data.length, 0)
  if (bytes > BATCH_BYTES) throw new Error(`${bytes} bytes: this small client sends at most ${BATCH_BYTES}`)
  if (batch.length > 0) {
    const { results } = await call(blobs, 'BatchUpdateBlobs', { blobs: batch })
    const failed = results.find(({ reason }) => reason)
    if (failed) throw new Error(`${failed.digest.sha256}: ${failed.reason}`)
  }
  say({ uploaded: batch.length, bytes })
}

function watch(audits, name) {
  return new Promise((resolve, reject) => {
    const stream = audits.WatchAudit({ name })
    let state = 'STATE_UNSPECIFIED'
    stream.on('data', (event) => {
      if (event.sequence === '0') return // a keepalive
      if (event.stateChanged) state = event.stateChanged.state
      say(event)
    })
    stream.on('error', reject)
    stream.on('end', () => resolve(state))
  })
}

const { Blobs, Models, Audits } = connect()
try {
  const { manifest, blobs } = readModel()
  await upload(Blobs, blobs)
  const model = await call(Models, 'CreateModel', { manifestSha256: digestOf(manifest).sha256 })
  say({ model: model.name })
  const audit = await call(Audits, 'SubmitAudit', {
    requestId: randomUUID(),
    audit: {
      model: model.name,
      checks: [{ check: `checks/${check}`, parametersJson: parameters }],
      nonce: randomBytes(32),
      labels: { client: 'node' },
    },
  })
  say({ audit: audit.name, state: audit.state })
  const state = await watch(Audits, audit.name)
  const ended = await call(Audits, 'GetAudit', { name: audit.name })
  say({ audit: ended.name, state: ended.state, outcome: ended.outcome, reports: ended.reports ?? [] })
  process.exitCode = state === 'STATE_COMPLETED' && ended.state === 'STATE_COMPLETED' ? 0 : 2
} catch (error) {
  say({ error: error.message, code: error.code ?? null })
  process.exitCode = 1
} finally {
  for (const service of [Blobs, Models, Audits]) service.close()
}
