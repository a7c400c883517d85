/** Where a new password comes from: a person at a terminal, a file, or a line of standard input. */
import { open } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { type Readable, Writable } from 'node:stream'
import { Problem } from '../../protocol/problem.ts'

const minCharacters = 8
const maxBytes = 1024

/**
 * A new password for `name`. `file` names where it stands, `-` is standard input; without one a terminal is asked
 * twice, and of anything else a line is read. Problem `usage` for one that cannot be taken, `cancelled` at Ctrl-C.
 */
export async function readNewPassword(name: string, file?: string): Promise<string> {
  return expectGood(await readRaw(name, file))
}

async function readRaw(name: string, file: string | undefined): Promise<string> {
  if (file !== undefined && file !== '-') {
    const handle = await open(file)
    try {
      return await firstLine(handle.createReadStream({ autoClose: false }))
    } finally {
      await handle.close()
    }
  }
  if (file === '-' || !process.stdin.isTTY) return await firstLine(process.stdin)
  const password = expectGood(await ask(`New password for ${name}: `))
  if ((await ask('Once more: ')) !== password)
    throw new Problem('usage', 'these were two different passwords')
  return password
}

function expectGood(password: string): string {
  if ([...password].length < minCharacters)
    throw new Problem('usage', `a password needs ${minCharacters} characters at least`)
  if (Buffer.byteLength(password) > maxBytes)
    throw new Problem('usage', `a password of more than ${maxBytes} bytes is too long`)
  // HTTP has no way to send them: RFC 7617, section 2.
  if (/\p{Cc}/u.test(password)) throw new Problem('usage', 'a password must not hold control characters')
  return password
}

/** The first line of a stream, without its end. */
async function firstLine(stream: Readable): Promise<string> {
  const pieces: Buffer[] = []
  let length = 0
  for await (const piece of stream as AsyncIterable<Buffer | string>) {
    const bytes = Buffer.from(piece as string)
    pieces.push(bytes)
    length += bytes.length
    if (bytes.includes('\n') || length > 2 * maxBytes) break
  }
  if (length === 0) throw new Problem('usage', 'no password came')
  const [line = ''] = Buffer.concat(pieces).toString('utf8').split('\n')
  return line.replace(/\r$/, '')
}

/** Asks at the terminal, on standard error, and shows nothing of the answer. */
async function ask(question: string): Promise<string> {
  const nowhere = new Writable({ write: (_piece, _encoding, done) => done() })
  const terminal = createInterface({ input: process.stdin, output: nowhere, terminal: true, historySize: 0 })
  // Now that the terminal shows nothing any more.
  process.stderr.write(question)
  try {
    return await new Promise<string>((resolve, reject) => {
      terminal.once('line', resolve)
      terminal.once('SIGINT', () => reject(new Problem('cancelled', 'nothing was changed')))
      terminal.once('close', () => reject(new Problem('usage', 'no password was given')))
    })
  } finally {
    terminal.close()
    process.stderr.write('\n')
  }
}
