/** Certificates for tests, made by openssl when they are needed: no key is in the repository. */
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

export interface IssuedCertificate {
  /** PEM files: the certificate with those above it, and its key. */
  readonly cert: string
  readonly key: string
}

export interface IssueOptions {
  readonly commonName?: string
  /** As openssl writes them. */
  readonly names?: string
  readonly days?: number
  /** Further lines of the subject, such as `/CN=second`. */
  readonly subject?: string
  readonly isForClients?: boolean
}

export const opensslIsInstalled = (process.env.PATH ?? '')
  .split(':')
  .some((folder) => existsSync(`${folder}/openssl`))

/** An authority, and one between it and those that it certifies. */
export class TestAuthority {
  readonly folder: string
  /** PEM file of the root: what clients are told to believe. */
  readonly root: string
  readonly #name: string
  #serial = 1

  private constructor(folder: string, name: string) {
    this.folder = folder
    this.#name = name
    this.root = join(folder, `${name}.pem`)
  }

  /** `name` tells the files of several authorities in one folder apart. */
  static async create(folder: string, name = 'root'): Promise<TestAuthority> {
    const authority = new TestAuthority(folder, name)
    await openssl(
      ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '30'],
      ['-subj', `/CN=chunkdav test ${name}`, '-keyout', join(folder, `${name}.key`), '-out', authority.root],
      ['-addext', 'basicConstraints=critical,CA:TRUE', '-addext', 'keyUsage=critical,keyCertSign'],
    )
    return authority
  }

  async issue(name: string, options: IssueOptions = {}): Promise<IssuedCertificate> {
    const { folder } = this
    const { names = 'DNS:localhost,IP:127.0.0.1', days = 90, isForClients = false } = options
    const subject = options.subject ?? `/CN=${options.commonName ?? name}`
    const [cert, key, request] = ['pem', 'key', 'csr'].map((end) => join(folder, `${name}.${end}`)) as [
      string,
      string,
      string,
    ]
    const extensions = join(folder, `${name}.ext`)
    const usage = `extendedKeyUsage=${isForClients ? 'clientAuth' : 'serverAuth'}\n`
    await writeFile(extensions, usage + (isForClients ? '' : `subjectAltName=${names}\n`))
    await openssl(
      ['req', '-new', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'],
      ['-subj', subject, '-utf8', '-keyout', key, '-out', request],
    )
    await openssl(
      ['x509', '-req', '-in', request, '-CA', this.root, '-CAkey', join(folder, `${this.#name}.key`)],
      ['-set_serial', String(this.#serial++), '-days', String(days), '-extfile', extensions, '-out', cert],
    )
    return { cert, key }
  }
}

async function openssl(...args: string[][]): Promise<void> {
  await run('openssl', args.flat())
}
