/** Takes bytes on a TCP port and forgets them; says so by one byte after each 64 MiB. Posts the port. */
import { type AddressInfo, createServer } from 'node:net'
import { parentPort } from 'node:worker_threads'

const roundBytes = 64 * 1024 * 1024

const server = createServer((socket) => {
  let left = roundBytes
  socket.on('data', (piece: Buffer) => {
    left -= piece.length
    if (left > 0) return
    left += roundBytes
    socket.write('.')
  })
})
server.listen(0, '127.0.0.1', () => parentPort?.postMessage((server.address() as AddressInfo).port))
