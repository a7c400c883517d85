/**
 * What any server in Node can reach at most: takes a body and forgets it, gives as many bytes as the last part of the
 * path says. Tells its port.
 */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

const contents = new Map<number, Buffer>()

const server = createServer((request, response) => {
  if (request.method === 'GET') {
    const bytes = Number(request.url?.split('/').at(-1))
    const content = contents.get(bytes) ?? Buffer.alloc(bytes, 'x')
    contents.set(bytes, content)
    response.setHeader('Content-Length', bytes)
    response.end(content)
    return
  }
  request.resume()
  request.once('end', () => {
    response.statusCode = 201
    response.setHeader('Content-Length', 0)
    response.end()
  })
})
server.listen(0, '127.0.0.1', () => process.send?.((server.address() as AddressInfo).port))
process.once('disconnect', () => process.exit())
