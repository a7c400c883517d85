/**
 * How the program's threads start and end.
 *
 * None is terminated but by the end of the process: it is asked to end. Where it loads native code at that moment, or is in it,
 * that would find its calls failing, and koffi takes the whole process along.
 */
import { parentPort, Worker, workerData } from 'node:worker_threads'
import { loading } from './v8-tuning.ts'

/** The order that ends a thread. */
const end = null

/**
 * Starts a thread for work on bytes, which must call `takeOrders`; `data` goes along. It makes little garbage: without a
 * bound it would keep tens of MiB for it; and a heap that may grow to 2 GiB has Node's built-in code in memory once more.
 */
export function startThread(module: URL, data: object = {}): Worker {
  const started = new Int32Array(new SharedArrayBuffer(4))
  const worker = new Worker(module, {
    workerData: { ...data, started },
    resourceLimits: { maxYoungGenerationSizeMb: 2, maxOldGenerationSizeMb: 2047 },
  })
  worker.once('exit', () => markStarted(started))
  void loading(async () => Atomics.waitAsync(started, 0, 0).value)
  return worker
}

/** Resolves when the thread has ended, after all orders that it was given. Idempotent. */
export async function endThread(worker: Worker): Promise<void> {
  // Of one that has ended.
  if (worker.threadId === -1) return
  worker.ref()
  const { promise, resolve } = Promise.withResolvers<void>()
  worker.once('exit', () => resolve())
  worker.postMessage(end)
  await promise
}

/** In a thread, when everything is loaded: does what it is told, one order after the other, until it is told to end. */
export function takeOrders<Order extends object>(work: (order: Order) => void): void {
  const port = parentPort
  if (port === null) throw new TypeError('this is no thread')
  markStarted((workerData as { readonly started: Int32Array }).started)
  port.on('message', (order: Order | typeof end) => {
    if (order === end) port.close()
    else work(order)
  })
}

function markStarted(started: Int32Array): void {
  Atomics.store(started, 0, 1)
  Atomics.notify(started, 0)
}
