/** A worker for the tests of StreamThread: jobs say what it does. */
import { parentPort, workerData } from 'node:worker_threads'
import { serveJobs } from '../../../client/sources/stream-thread.ts'

export type Job =
  | { readonly do: 'count'; readonly to: number; readonly label: string }
  | { readonly do: 'throw' | 'die' | 'exit' }

const { shared, ahead, atStart } = workerData as { shared: Int32Array; ahead: number; atStart?: string }
if (atStart === 'throw') throw new Error('thrown at the start')

if (parentPort !== null) {
  serveJobs<Job, string>(parentPort, shared, ahead, (job, outlet) => {
    if (job.do === 'count') {
      for (let i = 0; i < job.to && outlet.send(`${job.label}${i}`); i++);
      return
    }
    outlet.send('first')
    if (job.do === 'throw') throw new Error('thrown by a job')
    if (job.do === 'exit') process.exit(1)
    // Behind the job's back, before the next message: an uncaught exception.
    queueMicrotask(() => {
      throw new Error('died')
    })
    outlet.send('second')
  })
}
