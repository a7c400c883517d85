/** What a run of the backups found, as it goes to the file of results; the section is made of nothing else. */
import type { CorpusName, Facts } from './corpora.ts'

export type Step = 'first' | 'again' | 'changed' | 'restore'

export interface Sample {
  readonly corpus: CorpusName
  readonly step: Step
  readonly tool: string
  /** Samples of one round stand side by side: ratios are taken between them. */
  readonly round: number
  readonly seconds: number
  readonly clientCpuSeconds: number
  readonly clientPeakBytes: number
  /** Of a tool that writes its repository itself there is no server. */
  readonly server?: { readonly cpuSeconds: number; readonly peakBytes: number }
  /** After a backup: all that is in the repository. */
  readonly storedBytes?: number
}

/** What went over the wire, counted in a run that is not timed. */
export interface Traffic {
  readonly corpus: CorpusName
  readonly step: Step
  readonly tool: string
  readonly sentBytes: number
  readonly receivedBytes: number
}

export interface Tool {
  readonly name: string
  readonly version: string
  readonly usage: string
}

/** One that was measured: when, and what of us. */
export interface MeasuredCorpus extends Facts {
  readonly at: string
  readonly commit: string
}

export interface Samples {
  readonly corpora: Readonly<Partial<Record<CorpusName, MeasuredCorpus>>>
  readonly tools: readonly Tool[]
  readonly samples: readonly Sample[]
  readonly traffic: readonly Traffic[]
  /** Tools whose restored tree was compared with the source, and was equal to it. */
  readonly compared: readonly string[]
}

/** The tool that all others are compared with. */
export const ours = 'chunkdav'

/** In how many rounds a tool took part. */
export function roundsOf(all: Samples, corpus: CorpusName, tool: string): number {
  const its = all.samples.filter((one) => one.corpus === corpus && one.tool === tool)
  return new Set(its.map(({ round }) => round)).size
}

export function samplesOf(all: Samples, corpus: CorpusName, step: Step, tool: string): Sample[] {
  return all.samples.filter((one) => one.corpus === corpus && one.step === step && one.tool === tool)
}
