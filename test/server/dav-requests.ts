/** What the tests of the live tree have in common: requests below `tree/`, and what their answers say. */
import { request } from 'node:http'
import { childrenOf, nameOf, parseXml, textOf, type XmlElement } from '../../server/http/xml.ts'
import type { TestReceiver } from '../support/receiver.ts'

export interface DavAnswer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | undefined>>
  readonly text: string
}

export type Headers = Readonly<Record<string, string>>

/** Sends the path as it is: a slash at its start is the root of the server, else it is below the vault's tree. */
export async function ask(
  server: TestReceiver,
  method: string,
  path: string,
  headers: Headers = {},
  body: string | Buffer = '',
): Promise<DavAnswer> {
  const { hostname, port } = new URL(server.url)
  const length =
    body.length === 0 && method !== 'PUT' ? {} : { 'Content-Length': String(Buffer.byteLength(body)) }
  return await new Promise((resolve, reject) => {
    const asked = request(
      {
        hostname,
        port,
        method,
        path: path.startsWith('/') ? path : `/home/tree/${path}`,
        agent: false,
        headers: { ...length, ...headers },
      },
      (answer) => {
        let text = ''
        answer.setEncoding('utf8').on('data', (piece: string) => {
          text += piece
        })
        answer.on('end', () => {
          resolve({ status: answer.statusCode ?? 0, headers: answer.headers as DavAnswer['headers'], text })
        })
        answer.on('error', reject)
      },
    )
    asked.on('error', reject)
    asked.end(body)
  })
}

/** The status, and the code of a problem document or the condition of a `D:error`. */
export function told({ status, headers, text }: DavAnswer): string {
  if (headers['content-type']?.startsWith('application/problem+json')) {
    const { type } = JSON.parse(text) as { type: string }
    return `${status} ${type.replace('urn:chunkdav:problem:', '')}`
  }
  const isXml = text !== '' && headers['content-type']?.startsWith('application/xml')
  const root = isXml ? parseXml(text) : undefined
  if (root === undefined || nameOf(root) !== 'DAV: error') return String(status)
  return `${status} ${childrenOf(root)[0]?.local}`
}

/** Asks and returns what `told` says of the answer. */
export async function tells(
  server: TestReceiver,
  ...asked: Parameters<typeof ask> extends [unknown, ...infer R] ? R : never
): Promise<string> {
  return told(await ask(server, ...asked))
}

/** The texts of all elements of this local name, in order. */
export function texts(xml: string, local: string): string[] {
  const found: string[] = []
  const look = (element: XmlElement): void => {
    if (element.local === local) found.push(textOf(element))
    childrenOf(element).forEach(look)
  }
  look(parseXml(xml))
  return found
}

/** Each response of a multistatus: its href, and its statuses each with the local names of the properties that have it. */
export function responses(xml: string): { href: string; status: string[] }[] {
  const text = (element: XmlElement, local: string): string =>
    childrenOf(element)
      .filter((child) => child.local === local)
      .map(textOf)
      .join('')
  return childrenOf(parseXml(xml))
    .filter(({ local }) => local === 'response')
    .map((response) => {
      const stats = childrenOf(response).filter(({ local }) => local === 'propstat')
      const own = text(response, 'status')
      return {
        href: text(response, 'href'),
        status: [
          ...(own === '' ? [] : [own.slice(9, 12)]),
          ...stats.map((stat) => {
            const names = childrenOf(stat)
              .filter(({ local }) => local === 'prop')
              .flatMap(childrenOf)
            return `${text(stat, 'status').slice(9, 12)} ${names.map(({ local }) => local).join(' ')}`
          }),
        ],
      }
    })
}

/** PROPFIND of one property of one resource: its element as text, or undefined when it has none. */
export async function property(
  server: TestReceiver,
  path: string,
  namespace: string,
  local: string,
): Promise<XmlElement | undefined> {
  const body = `<D:propfind xmlns:D="DAV:"><D:prop><x:${local} xmlns:x="${namespace}"/></D:prop></D:propfind>`
  const answer = await ask(server, 'PROPFIND', path, { Depth: '0' }, body)
  const stats = childrenOf(childrenOf(parseXml(answer.text))[0] as XmlElement).filter(
    ({ local }) => local === 'propstat',
  )
  for (const stat of stats) {
    const [prop, status] = childrenOf(stat) as [XmlElement, XmlElement]
    if (textOf(status).includes(' 200 '))
      return childrenOf(prop).find((child) => nameOf(child) === `${namespace} ${local}`)
  }
  return undefined
}

/** The names in a collection, percent-encoded as in hrefs, sorted as listed. */
export async function members(server: TestReceiver, path = ''): Promise<string[]> {
  const answer = await ask(server, 'PROPFIND', path, { Depth: '1' })
  const [self = '', ...hrefs] = responses(answer.text).map(({ href }) => href)
  return hrefs.map((href) => href.slice(self.length))
}

export async function content(server: TestReceiver, path: string): Promise<string> {
  const answer = await ask(server, 'GET', path)
  return answer.status === 200 ? answer.text : String(answer.status)
}

export function lockBody(scope: 'exclusive' | 'shared' = 'exclusive', owner = ''): string {
  return `<?xml version="1.0"?><D:lockinfo xmlns:D="DAV:"><D:lockscope><D:${scope}/></D:lockscope><D:locktype><D:write/></D:locktype>${owner}</D:lockinfo>`
}

/** Locks and returns the token. */
export async function lock(
  server: TestReceiver,
  path: string,
  headers: Headers = {},
  scope: 'exclusive' | 'shared' = 'exclusive',
): Promise<string> {
  const answer = await ask(server, 'LOCK', path, headers, lockBody(scope))
  const token = /^<(.*)>$/.exec(answer.headers['lock-token'] ?? '')?.[1]
  if (token === undefined) throw new Error(`LOCK ${path}: ${answer.status} ${answer.text}`)
  return token
}

export function setProperties(inner: string): string {
  return `<D:propertyupdate xmlns:D="DAV:"><D:set><D:prop>${inner}</D:prop></D:set></D:propertyupdate>`
}
