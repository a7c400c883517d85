/**
 * Tokens: `cdt_{id}_{secret}{check}`. The id is 12 hex digits and may be shown; the secret is 64, all of 256 bits from
 * the system's source of randomness; the check is the CRC-32 of what stands before it, in 8. It tells a token that was
 * cut off or mistyped from a wrong one, and lets scanners of leaked secrets be sure of what they found. Only the
 * SHA-256 of the whole is kept: nobody can go through 2^256 secrets, so nothing slower is needed.
 */
import { hash, randomBytes } from 'node:crypto'
import { crc32 } from 'node:zlib'

const grammar = /^(cdt_([0-9a-f]{12})_[0-9a-f]{64})([0-9a-f]{8})$/

export interface NewToken {
  readonly id: string
  /** To be shown once. */
  readonly token: string
  /** To be kept. */
  readonly hash: string
}

export function makeToken(): NewToken {
  const id = randomBytes(6).toString('hex')
  const start = `cdt_${id}_${randomBytes(32).toString('hex')}`
  const token = start + checkOf(start)
  return { id, token, hash: tokenHash(token) }
}

/** The id of what has the form of a token; undefined for anything else. */
export function tokenId(text: string): string | undefined {
  const [, start = '', id, check] = grammar.exec(text) ?? []
  return id !== undefined && checkOf(start) === check ? id : undefined
}

/** SHA-256 in hex: what is kept of a token. */
export function tokenHash(token: string): string {
  return hash('sha256', token, 'hex')
}

function checkOf(start: string): string {
  return crc32(start).toString(16).padStart(8, '0')
}
