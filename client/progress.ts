/** How far a command is: a bar on a terminal, a JSON line now and then for scripts, else nothing. */
import { createRequire } from 'node:module'
import type { SingleBar } from 'cli-progress'
import prettyBytes from 'pretty-bytes'

export interface ProgressCounts {
  readonly filesDone: number
  readonly bytesDone: number
  /** Absent while it is not known how many there will be. */
  readonly filesTotal?: number | undefined
  readonly bytesTotal?: number | undefined
  /** What is counted where it is no files. */
  readonly unit?: string
}

export interface Progress {
  /** Says where things stand. Cheap: may be called for every chunk. */
  update(counts: ProgressCounts): void
  /** Takes the bar away. Idempotent. */
  stop(): void
}

export interface ProgressOptions {
  readonly stream: NodeJS.WritableStream
  readonly isTTY: boolean
  /** Takes a `progress` object about once a second, instead of the bar. */
  readonly json?: ((event: { type: 'progress'; [field: string]: unknown }) => void) | undefined
}

const emitEveryMs = 1000
const drawEveryMs = 200
const barWidth = 20
/** The rate is that of the last seconds: an average over hours says nothing about the time left. */
const rateWindowMs = 15_000

export function createProgress({ stream, isTTY, json }: ProgressOptions): Progress {
  if (json !== undefined) return new JsonProgress(json)
  return isTTY ? new BarProgress(stream) : { update() {}, stop() {} }
}

class JsonProgress implements Progress {
  readonly #emit: NonNullable<ProgressOptions['json']>
  readonly #startedAt = performance.now()
  #emittedAt = this.#startedAt

  constructor(emit: NonNullable<ProgressOptions['json']>) {
    this.#emit = emit
  }

  update(counts: ProgressCounts): void {
    const now = performance.now()
    if (now - this.#emittedAt < emitEveryMs) return
    this.#emittedAt = now
    this.#emit({ type: 'progress', ...counts, seconds: Math.round((now - this.#startedAt) / 100) / 10 })
  }

  stop(): void {}
}

class BarProgress implements Progress {
  readonly #bar: SingleBar
  readonly #rate = new Rate()
  #started = false
  #drawnAt = Number.NEGATIVE_INFINITY

  constructor(stream: NodeJS.WritableStream) {
    // Only where somebody watches: loading it takes 4 ms.
    const cliProgress = createRequire(import.meta.url)('cli-progress') as typeof import('cli-progress')
    const format = (_options: unknown, _params: unknown, payload: { line: string }) => payload.line
    this.#bar = new cliProgress.SingleBar({
      stream,
      format: format as never,
      clearOnComplete: true,
      hideCursor: true,
      linewrap: false,
      fps: 1000 / drawEveryMs,
    })
  }

  update(counts: ProgressCounts): void {
    const now = performance.now()
    if (now - this.#drawnAt < drawEveryMs) return
    this.#drawnAt = now
    const line = progressLine(counts, this.#rate.after(counts.bytesDone, now))
    if (this.#started) {
      this.#bar.update(1, { line })
    } else {
      this.#started = true
      this.#bar.start(2, 1, { line })
    }
  }

  stop(): void {
    if (this.#started) this.#bar.stop()
    this.#started = false
    this.#drawnAt = Number.POSITIVE_INFINITY
  }
}

/** Bytes a second over the last while. */
class Rate {
  #samples: { at: number; bytes: number }[] = []

  after(bytes: number, now: number): number | undefined {
    this.#samples.push({ at: now, bytes })
    while ((this.#samples[0]?.at ?? now) < now - rateWindowMs) this.#samples.shift()
    const oldest = this.#samples[0]
    if (oldest === undefined || now - oldest.at < 500) return undefined
    return ((bytes - oldest.bytes) * 1000) / (now - oldest.at)
  }
}

/** One line of progress: bar, files, bytes, rate, time left, as far as they are known. */
export function progressLine(counts: ProgressCounts, bytesPerSecond: number | undefined): string {
  const { filesDone, filesTotal, bytesDone, bytesTotal, unit = 'file' } = counts
  const parts: string[] = []
  if (bytesTotal !== undefined && bytesTotal > 0) {
    const share = Math.min(1, bytesDone / bytesTotal)
    const filled = Math.round(share * barWidth)
    const percent = String(Math.floor(share * 100)).padStart(3)
    parts.push(`${'█'.repeat(filled)}${'░'.repeat(barWidth - filled)} ${percent}%`)
  }
  const ofFiles = filesTotal === undefined ? '' : ` of ${filesTotal}`
  parts.push(`${filesDone}${ofFiles} ${unit}${(filesTotal ?? filesDone) === 1 ? '' : 's'}`)
  parts.push(prettyBytes(bytesDone) + (bytesTotal === undefined ? '' : ` of ${prettyBytes(bytesTotal)}`))
  if (bytesPerSecond !== undefined) {
    parts.push(`${prettyBytes(bytesPerSecond)}/s`)
    if (bytesTotal !== undefined && bytesPerSecond > 0 && bytesDone < bytesTotal) {
      parts.push(`${duration((bytesTotal - bytesDone) / bytesPerSecond)} left`)
    }
  }
  return parts.join('  ')
}

/** Seconds for people: `41 s`, `3 min 20 s`, `2 h 5 min`. */
export function duration(seconds: number): string {
  if (seconds < 10) return `${seconds.toFixed(1)} s`
  const whole = Math.round(seconds)
  if (whole < 60) return `${whole} s`
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`
  return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`
}
