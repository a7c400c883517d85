/** A cutting thread's inside: the uploads that it serves, each with what was cut of it so far. */
import { parentPort } from 'node:worker_threads'
import { ContentCutter } from './content-cutter.ts'
import type { FromCutter, ToCutter } from './cutting-thread.ts'

const cutters = new Map<number, ContentCutter>()

function answer(message: ToCutter): FromCutter | undefined {
  const { job } = message
  if (message.kind === 'begin') {
    cutters.set(job, new ContentCutter(message.window))
    return undefined
  }
  const cutter = cutters.get(job)
  if (message.kind === 'drop') {
    // It may have been finished just before.
    cutters.delete(job)
    cutter?.dispose()
    return { job, chunks: [], dropped: true }
  }
  if (cutter === undefined) throw new TypeError(`upload ${job} is not known here`)
  if (message.kind === 'more') return { job, chunks: cutter.more(message.bytes) }
  cutters.delete(job)
  return { job, ...cutter.finish() }
}

// Whatever is thrown in here is a defect: it ends the thread, and with it the uploads that it served.
parentPort?.on('message', (message: ToCutter | null) => {
  if (message === null) {
    parentPort?.close()
    return
  }
  const reply = answer(message)
  if (reply !== undefined) parentPort?.postMessage(reply)
})
