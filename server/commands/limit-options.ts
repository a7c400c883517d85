/** The options of `serve` that bound what clients may take: docs/operations.md has the whole table. */
import { type Command, Option } from 'commander'
import { Problem } from '../../protocol/problem.ts'
import { type ClientLimits, defaultClientLimits } from '../http/client-limits.ts'
import type { ReceiverOptions } from '../receiver.ts'
import { parseDuration, parseReserve } from '../upkeep/schedule-options.ts'
import { parsed } from './data-command.ts'

export interface LimitOptions {
  readonly maxConnections: number
  readonly maxConnectionsPerClient: number
  readonly maxRequestsPerClient: number
  readonly headersTimeout: number
  readonly memory: number
}

const MiB = 1024 * 1024
const defaultMemoryBytes = 128 * MiB
const minMemoryBytes = 16 * MiB

export function withLimitOptions(command: Command): Command {
  const count = (flag: string, text: string, value: number): Option =>
    new Option(`${flag} <number>`, text).argParser((given) => parsed(given, parseCount)).default(value)
  const limits: ClientLimits = defaultClientLimits
  return command
    .addOption(count('--max-connections', 'connections at once', limits.maxConnections))
    .addOption(count('--max-connections-per-client', 'those of one address', limits.maxClientConnections))
    .addOption(
      count(
        '--max-requests-per-client',
        'requests of one user, or address, at work at once',
        limits.maxClientRequests,
      ),
    )
    .addOption(
      new Option('--headers-timeout <duration>', 'how long the headers of a request may take')
        .argParser((text) => parsed(text, parseTimeout))
        .default(limits.headersTimeoutMs, '30s'),
    )
    .addOption(
      new Option('--memory <size>', 'what bodies of requests may hold in memory at once; answers as much')
        .argParser((text) => parsed(text, parseMemory))
        .default(defaultMemoryBytes, '128MiB'),
    )
}

/** What these options mean to a receiver. */
export function limitsOf(options: LimitOptions): Pick<ReceiverOptions, 'clientLimits' | 'memoryBytes'> {
  return {
    clientLimits: {
      maxConnections: options.maxConnections,
      maxClientConnections: options.maxConnectionsPerClient,
      maxClientRequests: options.maxRequestsPerClient,
      headersTimeoutMs: options.headersTimeout,
    },
    memoryBytes: options.memory,
  }
}

function parseCount(text: string): number {
  if (/^[1-9][0-9]{0,6}$/.test(text)) return Number(text)
  throw new Problem('usage', 'it must be a number above 0')
}

function parseTimeout(text: string): number {
  const ms = parseDuration(text)
  if (ms >= 1000 && ms <= 3_600_000) return ms
  throw new Problem('usage', 'it must be between 1s and 1h')
}

function parseMemory(text: string): number {
  const bytes = parseReserve(text)
  if (bytes >= minMemoryBytes) return bytes
  throw new Problem('usage', 'it must be 16MiB or more: a chunk may have as much')
}
