import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openReceiver, type Receiver, type ReceiverOptions } from '../../server/index.ts'
import { observe, type ResponseObserver } from './openapi.ts'

export interface TestReceiver extends AsyncDisposable {
  readonly receiver: Receiver
  /** `http://127.0.0.1:port`. */
  readonly url: string
  /** `{url}/home`: a vault that exists. */
  readonly vaultUrl: string
  readonly dataDir: string
  /** Stops it and removes its data; throws when an answer broke the contract of openapi.yaml. */
  stop(): Promise<void>
}

export interface TestReceiverOptions extends Partial<ReceiverOptions> {
  /** Leave the data directory behind at `stop`. Given a `dataDir`, it is left behind in any case. */
  readonly keep?: boolean
  /** Do not hold the answers against openapi.yaml. */
  readonly unobserved?: boolean
}

/** A receiver on a free port of 127.0.0.1 with a fresh data directory and one vault, `home`. */
export async function startReceiver(options: TestReceiverOptions = {}): Promise<TestReceiver> {
  const dataDir = options.dataDir ?? (await mkdtemp(join(tmpdir(), 'chunkdav-receiver-')))
  const receiver = await openReceiver({ port: 0, drainMs: 2000, ...options, dataDir })
  const observer: ResponseObserver | undefined =
    options.unobserved === true ? undefined : observe(receiver.server)
  if (!(await receiver.vaults.list()).includes('home')) await receiver.vaults.create('home')
  const stop = async (): Promise<void> => {
    await receiver.close()
    if (options.keep !== true && options.dataDir === undefined)
      await rm(dataDir, { recursive: true, force: true })
    observer?.assertClean()
  }
  return {
    receiver,
    url: receiver.url,
    vaultUrl: `${receiver.url}/home`,
    dataDir,
    stop,
    [Symbol.asyncDispose]: stop,
  }
}
