import { isProblem } from '../../protocol/problem.ts'

const maxAttempts = 4

/**
 * Runs `work`, and once more when it was refused because what it relied on may have been lost meanwhile: mostly that is
 * because a garbage collection has begun. It must look up anew what it relies on.
 */
export async function againAfterLoss<T>(
  chunks: { readonly losses: number },
  work: () => Promise<T>,
): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    const { losses } = chunks
    try {
      return await work()
    } catch (error) {
      const isLoss = isProblem(error, 'unavailable') && chunks.losses !== losses
      if (!isLoss || attempt === maxAttempts) throw error
    }
  }
}
