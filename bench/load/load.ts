/**
 * Many clients at once: each is a user of the receiver and backs up its own changing directory again and again, with the
 * real engine, beside connections that do harm. The receiver is a process of its own.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { hashId } from '../../protocol/hash.ts'
import { seededBytes } from '../../test/support/tree.ts'
import { type TestUser, writeUsers } from '../../test/support/users.ts'
import { type Delay, startReceiverProcess } from '../receiver-process.ts'
import type { ClientTask, FromClients, ToClients } from './load-client.ts'
import { type NuisanceFigures, Nuisances } from './nuisances.ts'

export interface LoadOptions {
  readonly clients: number
  readonly seconds: number
  readonly vaults: number
  /** Processes that the clients are divided over. */
  readonly processes: number
  /** How many clients' last backups are restored and compared. */
  readonly compared: number
  readonly slowHeads: number
  readonly halfOpen: number
  readonly slowBodies: number
  readonly slowReaders: number
  readonly seed: string
}

export interface LoadFigures {
  /** Backups of each client, fewest first. */
  readonly backups: readonly number[]
  /** How long each backup took, shortest first. */
  readonly durationsMs: readonly number[]
  readonly bytesSent: number
  readonly compared: number
  readonly errors: readonly string[]
  readonly peakBytes: number
  readonly eventLoop: Delay
  readonly nuisances: NuisanceFigures
  readonly seconds: number
}

const clientScript = new URL('./load-client.ts', import.meta.url).pathname
const MiB = 1024 * 1024

export async function runLoad(options: LoadOptions): Promise<LoadFigures> {
  const folder = await mkdtemp(join(tmpdir(), 'chunkdav-load-'))
  // Connections that are cut off are warned of, and meant here.
  await using receiver = await startReceiverProcess(tmpdir(), 'error')
  try {
    const vaults = Array.from({ length: options.vaults }, (_, i) => `load-${i}`)
    for (const vault of vaults) await fetch(`${receiver.url}/${vault}/`, { method: 'MKCOL' })
    const names = Array.from({ length: options.clients }, (_, i) => `client-${i}`)
    const vaultOf = (i: number): string => vaults[i % vaults.length] as string
    const users: Record<string, TestUser> = { nuisance: { grants: { '*': 'write' } } }
    for (const [i, name] of names.entries()) users[name] = { grants: { [vaultOf(i)]: 'append+read' } }
    const tokens = await writeUsers(receiver.dataDir, users)
    while ((await fetch(`${receiver.url}/${vaults[0]}/`)).status !== 401) await sleep(100)
    const tasks = names.map((name, i): ClientTask => {
      const url = new URL(`/${vaultOf(i)}`, receiver.url)
      url.username = name
      url.password = tokens[name] as string
      return { name, vaultUrl: url.href, isCompared: i < options.compared }
    })
    const nuisances = await annoy(receiver.url, vaults[0] as string, tokens.nuisance as string, options)
    await receiver.beginPhase()
    const began = performance.now()
    const tally = await runClients(tasks, folder, options)
    const seconds = (performance.now() - began) / 1000
    const phase = await receiver.endPhase()
    await nuisances.stop()
    const { peakBytes, eventLoop } = phase
    const backups = names.map((name) => tally.backups.get(name) ?? 0).sort((a, b) => a - b)
    const durationsMs = tally.durationsMs.sort((a, b) => a - b)
    return { ...tally, backups, durationsMs, peakBytes, eventLoop, nuisances: nuisances.figures, seconds }
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

async function annoy(url: string, vault: string, token: string, options: LoadOptions): Promise<Nuisances> {
  const bytes = seededBytes(options.seed, 16 * MiB)
  const chunkId = hashId(bytes)
  const authorization = `Bearer ${token}`
  const body = new Uint8Array(bytes)
  const answer = await fetch(`${url}/${vault}/chunks/${chunkId}`, {
    method: 'PUT',
    body,
    headers: { authorization },
  })
  if (answer.status !== 201) throw new Error(`the chunk for slow readers was answered ${answer.status}`)
  return new Nuisances({ ...options, url, vault, authorization, chunkId })
}

interface Tally {
  readonly backups: Map<string, number>
  readonly durationsMs: number[]
  readonly errors: string[]
  bytesSent: number
  compared: number
}

async function runClients(
  tasks: readonly ClientTask[],
  folder: string,
  options: LoadOptions,
): Promise<Tally> {
  const tally: Tally = { backups: new Map(), durationsMs: [], errors: [], bytesSent: 0, compared: 0 }
  const processes = Array.from({ length: options.processes }, (_, i) => {
    const clients = tasks.filter((_, position) => position % options.processes === i)
    const child = fork(clientScript, { stdio: 'inherit' })
    child.send({ folder, seed: options.seed, clients, ms: options.seconds * 1000 } satisfies ToClients)
    return finished(child, tally)
  })
  await Promise.all(processes)
  return tally
}

async function finished(child: ChildProcess, tally: Tally): Promise<void> {
  let isDone = false
  child.on('message', (message: FromClients) => {
    if (message.kind === 'backup') {
      tally.backups.set(message.client, (tally.backups.get(message.client) ?? 0) + 1)
      tally.durationsMs.push(message.ms)
      tally.bytesSent += message.bytesSent
    } else if (message.kind === 'error') tally.errors.push(`${message.client}: ${message.text}`)
    else if (message.kind === 'compared') tally.compared++
    else isDone = true
  })
  await once(child, 'exit')
  if (!isDone) tally.errors.push(`a process of clients ended with ${child.exitCode ?? child.signalCode}`)
}

/** Jain's index: 1 when all have the same, 1/n when one has everything. */
export function fairnessOf(values: readonly number[]): number {
  const sum = values.reduce((total, value) => total + value, 0)
  const squares = values.reduce((total, value) => total + value * value, 0)
  return squares === 0 ? 0 : (sum * sum) / (values.length * squares)
}
