import { encodeProblem, Problem, problemCodes, statusOf } from '../../../protocol/problem.ts'

export function problemVectors(): unknown {
  return {
    documents: problemCodes
      .filter((code) => statusOf(code) !== undefined)
      .map((code) => ({ code, document: encodeProblem(new Problem(code, `An example of ${code}.`)) })),
    withExtensions: encodeProblem(
      new Problem('missing-chunks', 'An example with facts.', {
        extensions: { missing: [{ id: `sha256:${'0'.repeat(64)}`, within: `sha256:${'1'.repeat(64)}` }] },
      }),
    ),
  }
}
