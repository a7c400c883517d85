/**
 * The certificate that the receiver shows, and the authorities whose client certificates it believes: read from files,
 * checked before they are used, and read again on demand. Files that cannot be used change nothing.
 */
import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { createSecureContext, type SecureContextOptions } from 'node:tls'
import type { Logger } from 'pino'
import { Problem } from '../../protocol/problem.ts'
import { readFailure } from '../read-failure.ts'

export interface CertificateFiles {
  /** PEM: the receiver's certificate first, then those between it and its authority. */
  readonly cert: string
  /** PEM, without a passphrase. */
  readonly key: string
  /** PEM: authorities whose certificates say which user a client is. */
  readonly clientCa?: string
  /** Whoever has none of these certificates is not let in. */
  readonly isClientRequired?: boolean
}

/** What is read from the files. */
interface Material {
  readonly leaf: X509Certificate
  readonly context: SecureContextOptions
}

const dayMs = 24 * 3600 * 1000
const warnMs = 14 * dayMs

export class Certificate {
  readonly files: CertificateFiles
  private readonly log: Logger
  private material: Material
  private readonly timer: NodeJS.Timeout

  private constructor(files: CertificateFiles, material: Material, log: Logger) {
    this.files = files
    this.material = material
    this.log = log
    this.timer = setInterval(() => this.warnOfItsEnd(), dayMs).unref()
    this.warnOfItsEnd()
  }

  /** Reads the files. Problem `bad-certificate` tells which of them cannot be used, and why. */
  static async load(files: CertificateFiles, log: Logger): Promise<Certificate> {
    return new Certificate(files, await read(files), log)
  }

  /** What the connections to come are encrypted with. */
  get context(): SecureContextOptions {
    return this.material.context
  }

  /** A name or address that clients can ask for: the first that the certificate is for, no pattern. */
  get name(): string | undefined {
    const names = (this.material.leaf.subjectAltName ?? '').split(', ')
    return names.flatMap((name) => /^(?:DNS|IP Address):([^*"]+)$/.exec(name)?.slice(1) ?? [])[0]
  }

  /** Reads the files again. False when they cannot be used: then it is logged, and what was known stays. */
  async reload(): Promise<boolean> {
    try {
      this.material = await read(this.files)
    } catch (error) {
      this.log.error({ err: error }, 'the certificate could not be read again; the one from before stays')
      return false
    }
    this.log.info({ validTo: this.material.leaf.validToDate }, 'the certificate was read again')
    this.warnOfItsEnd()
    return true
  }

  private warnOfItsEnd(): void {
    const { validToDate: validTo, validFromDate: validFrom } = this.material.leaf
    const fields = { certificate: this.files.cert, validTo }
    if (validTo.getTime() < Date.now()) this.log.error(fields, 'the certificate has expired')
    else if (validTo.getTime() < Date.now() + warnMs) this.log.warn(fields, 'the certificate expires soon')
    if (validFrom.getTime() > Date.now()) {
      this.log.warn({ certificate: this.files.cert, validFrom }, 'the certificate is not valid yet')
    }
  }

  close(): void {
    clearInterval(this.timer)
  }
}

async function read(files: CertificateFiles): Promise<Material> {
  const cert = await readPem(files.cert)
  const [leaf] = certificatesIn(cert, files.cert)
  const key = await readPem(files.key)
  if (leaf?.checkPrivateKey(privateKey(key, files.key)) !== true) {
    throw bad(`${files.key} is not the key of the first certificate in ${files.cert}`)
  }
  const context: SecureContextOptions = { cert, key, minVersion: 'TLSv1.2' }
  if (files.clientCa !== undefined) {
    context.ca = await readPem(files.clientCa)
    // Without any, Node would believe everybody's authorities.
    certificatesIn(context.ca, files.clientCa)
  }
  try {
    createSecureContext(context)
  } catch (cause) {
    throw bad(`${files.cert} and ${files.key} cannot be used: ${(cause as Error).message}`, cause)
  }
  return { leaf, context }
}

async function readPem(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (cause) {
    throw bad(`${path} ${readFailure(cause)}`, cause)
  }
}

/** All of them, at least one. */
function certificatesIn(pem: string, path: string): X509Certificate[] {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----/gs) ?? []
  if (blocks.length === 0) throw bad(`${path} has no certificate in PEM form`)
  return blocks.map((block, index) => {
    try {
      return new X509Certificate(block)
    } catch (cause) {
      throw bad(`certificate ${index + 1} in ${path} is damaged`, cause)
    }
  })
}

function privateKey(pem: string, path: string): KeyObject {
  try {
    return createPrivateKey(pem)
  } catch (cause) {
    // `BEGIN ENCRYPTED PRIVATE KEY`, or `Proc-Type: 4,ENCRYPTED` in older ones.
    if (pem.includes('ENCRYPTED')) throw bad(`${path} has a passphrase, which nobody is here to type`, cause)
    throw bad(`${path} has no private key in PEM form`, cause)
  }
}

function bad(detail: string, cause?: unknown): Problem {
  return new Problem('bad-certificate', detail.replace(/\s*\n\s*/g, ' '), { cause })
}
