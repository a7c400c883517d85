/**
 * Hashes of passwords. Ours are PHC strings, `$scrypt$ln=15,r=8,p=3${salt}${hash}` in base64 without padding: the
 * parameters travel with each hash, so that they can be raised for new ones. Those of htpasswd files are bcrypt's,
 * `$2y$05$…`. Both run on threads of libuv's pool, which files and zstd use too: hashing-queue.ts bounds how many.
 */
import { type BinaryLike, randomBytes, type ScryptOptions, scrypt, timingSafeEqual } from 'node:crypto'
import { promisify } from 'node:util'
import bcrypt from 'bcrypt'

const derive = promisify<BinaryLike, BinaryLike, number, ScryptOptions, Buffer>(scrypt)

interface Parameters {
  /** log2 of N. */
  readonly ln: number
  readonly r: number
  readonly p: number
}

/** One of OWASP's choices of equal strength: 32 MiB and some 150 ms on a machine of today. */
const ours: Parameters = { ln: 15, r: 8, p: 3 }
const saltBytes = 16
const hashBytes = 32
/** What a hash that somebody wrote into the file may ask for at most. */
const most: Parameters = { ln: 20, r: 32, p: 16 }
const maxMemoryBytes = 1024 * 1024 * 1024

const phc = /^\$scrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=(\d{1,2})\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{22,86})$/
const blowfish = /^\$2[by]\$(\d\d)\$[./A-Za-z0-9]{53}$/
/** Beyond what `htpasswd -C` makes; it takes some ten seconds. */
const maxBcryptCost = 17

interface Scrypted extends Parameters {
  readonly salt: Buffer
  readonly hash: Buffer
}

/** A new hash of a password, with a salt of its own. */
export async function hashPassword(password: string): Promise<string> {
  const salt = randomBytes(saltBytes)
  const hash = await scrypted(password, salt, hashBytes, ours)
  return `$scrypt$ln=${ours.ln},r=${ours.r},p=${ours.p}$${base64(salt)}$${base64(hash)}`
}

/** Whether `text` is a hash of a password as `hashPassword` makes them. */
export function isPasswordHash(text: string): boolean {
  return parse(text) !== undefined
}

/** Whether `text` is a hash of bcrypt of a kind, and a cost, that is taken. */
export function isBcryptHash(text: string): boolean {
  const cost = Number(blowfish.exec(text)?.[1])
  return cost >= 4 && cost <= maxBcryptCost
}

/** Whether the password is the one of the hash, of either kind. Takes as long for a wrong one. */
export async function isPassword(password: string, hash: string): Promise<boolean> {
  // bcrypt knows the letter y by another one: the algorithm is the same.
  if (isBcryptHash(hash)) return await bcrypt.compare(password, `$2b${hash.slice(3)}`)
  const known = parse(hash)
  if (known === undefined) throw new TypeError('this is no hash of a password')
  return timingSafeEqual(await scrypted(password, known.salt, known.hash.length, known), known.hash)
}

/** Hashes of nobody's password: what is compared for users that are not there, so that it takes as long. */
export function nobodysHash(): string {
  const [salt, hash] = [randomBytes(saltBytes), randomBytes(hashBytes)]
  return `$scrypt$ln=${ours.ln},r=${ours.r},p=${ours.p}$${base64(salt)}$${base64(hash)}`
}

/** The same as bcrypt with the cost of `like`. */
export function nobodysBcryptHash(like: string): string {
  const letters = randomBytes(64).toString('base64').replaceAll('+', '.').replaceAll('=', '.')
  // The last letters of the salt and of the hash have fewer bits than six.
  return `${like.slice(0, 7)}${letters.slice(0, 21)}.${letters.slice(22, 52)}.`
}

function parse(text: string): Scrypted | undefined {
  const [, ln, r, p, salt = '', hash = ''] = phc.exec(text) ?? []
  const found = { ln: Number(ln), r: Number(r), p: Number(p) }
  const isBounded = found.ln <= most.ln && found.r <= most.r && found.p <= most.p
  if (!isBounded || found.ln < 1 || found.r < 1 || found.p < 1) return undefined
  if (memoryBytes(found) > maxMemoryBytes) return undefined
  return { ...found, salt: Buffer.from(salt, 'base64'), hash: Buffer.from(hash, 'base64') }
}

async function scrypted(
  password: string,
  salt: Buffer,
  length: number,
  { ln, r, p }: Parameters,
): Promise<Buffer> {
  const options = { N: 2 ** ln, r, p, maxmem: memoryBytes({ ln, r, p }) }
  // Keyboards and systems differ in how they compose an ü.
  return await derive(password.normalize('NFC'), salt, length, options)
}

/** What scrypt needs: RFC 7914, section 2, and some to spare. */
function memoryBytes({ ln, r, p }: Parameters): number {
  return 128 * r * (2 ** ln + p + 2) + 64 * 1024
}

function base64(bytes: Buffer): string {
  return bytes.toString('base64').replaceAll('=', '')
}
