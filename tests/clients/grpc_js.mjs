// Calls the server as a user of gRPC on Node.js would, and prints what came of it as JSON: for test_grpc_js.py.
//
// usage: node grpc_js.mjs MODULES ADDRESS PROTO_FOLDER GOOGLEAPIS_FOLDER HEALTH_DESCRIPTORS calls|late
import { createRequire } from 'node:module'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'

const [modules, address, protos, googleapis, health, what] = process.argv.slice(2)
const require = createRequire(join(modules, 'node_modules', '/'))
const grpc = require('@grpc/grpc-js')
const loader = require('@grpc/proto-loader')

const options = { longs: String, enums: String, defaults: true, includeDirs: [protos, googleapis] }
const api = loader.loadSync('analytics/v1/analytics.proto', options)
const rpc = loader.loadSync(['google/rpc/status.proto', 'google/rpc/error_details.proto'], options)
const checks = loader.loadFileDescriptorSetFromBuffer(readFileSync(health), options)

const client = (definition) => {
  const made = new (grpc.makeClientConstructor(definition, ''))(address, grpc.credentials.createInsecure())
  return { made, call: (name, ...args) => promisify(made[name].bind(made))(...args) }
}
const analytics = client(api['analytics.v1.AnalyticsService'])
const metric = (serviceName, value, more) => ({ serviceName, metricName: 'm', value, ...more })

const refusal = async (calling) => {
  const error = await calling.then(() => ({ code: 0 }), (refused) => refused)
  const [encoded] = error.metadata?.get('grpc-status-details-bin') ?? []
  const status = encoded && rpc['google.rpc.Status'].deserialize(encoded)
  const details = (status?.details ?? []).map((any) => [
    any.type_url ?? any.typeUrl,
    rpc['google.rpc.BadRequest'].deserialize(any.value).fieldViolations.map((each) => each.field),
  ])
  return { code: error.code, message: error.details, details }
}

// Each request is sent when the one before it is answered.
const streamed = (batches) => new Promise((resolve, reject) => {
  const call = analytics.made.StreamMetrics()
  const answers = []
  const next = () => batches.length ? call.write({ metrics: batches.shift() }) : call.end()
  call.on('data', (answer) => { answers.push(answer.accepted); next() })
  call.on('error', reject)
  call.on('end', () => resolve(answers))
  next()
})

const calls = async () => ({
  one: await analytics.call('LogMetric', metric('js', 1, { labels: { region: 'eu' } })),
  batch: await analytics.call('LogMetrics', { metrics: [metric('js', 2), metric('js', undefined), metric('js', 3)] }),
  stream: await streamed([[metric('js', 4)], [metric('js', 5), metric('js', 6)], [metric('js', 7)]]),
  health: await client(checks['grpc.health.v1.Health']).call('Check', {}),
  refused: await refusal(analytics.call('LogMetric', metric('wrong js', undefined))),
  behind: await analytics.call('LogMetric', metric('wrong js', 2, { ack: 'ACK_LEVEL_COMMITTED' })),
})

const late = async () => ({
  late: await refusal(analytics.call(
    'LogMetric', metric('late js', 1, { ack: 'ACK_LEVEL_COMMITTED' }), { deadline: Date.now() + 300 })),
})

console.log(JSON.stringify(await { calls, late }[what]()))
process.exit()
