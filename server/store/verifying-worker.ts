/** A verifying thread's inside: the batches that it has, of each a block in turn. */
import { setImmediate as nextTurn } from 'node:timers/promises'
import { parentPort } from 'node:worker_threads'
import { isProblem } from '../../protocol/problem.ts'
import { type BatchVerdict, judgeBatch } from './batch-verdict.ts'
import type { FromVerifier, ToVerifier } from './verifying-thread.ts'

interface Job extends ToVerifier {
  readonly steps: Generator<undefined, BatchVerdict>
}

const jobs: Job[] = []
let isBusy = false

/** The answer, when the job has ended with this step. Whatever else is thrown is a defect, and ends the thread. */
function step({ job, bytes, steps }: Job): FromVerifier | undefined {
  try {
    const { done, value } = steps.next()
    return done === true ? { job, bytes, verdict: value } : undefined
  } catch (error) {
    if (!isProblem(error)) throw error
    const { code, message, extensions } = error
    return { job, bytes, problem: { code, message, extensions } }
  }
}

async function work(): Promise<void> {
  isBusy = true
  for (let job = jobs.shift(); job !== undefined; job = jobs.shift()) {
    const answer = step(job)
    if (answer === undefined) jobs.push(job)
    else parentPort?.postMessage(answer, [answer.bytes])
    // So that further batches are heard of.
    await nextTurn()
  }
  isBusy = false
}

parentPort?.on('message', (message: ToVerifier) => {
  jobs.push({ ...message, steps: judgeBatch(Buffer.from(message.bytes)) })
  if (!isBusy) void work()
})
