import { describe, expect, test } from 'vitest'
import {
  decodeProblem,
  encodeProblem,
  isProblem,
  Problem,
  problemCodes,
  statusOf,
} from '../../protocol/problem.ts'
import { readVectors } from '../support/vectors/read.ts'

const vectors = readVectors<{
  documents: { code: string; document: { status: number; detail: string } }[]
  withExtensions: { status: number; missing: unknown }
}>('problems.json')
const local = problemCodes.filter((code) => statusOf(code) === undefined)

test('the vectors hold every code that travels', () => {
  expect(vectors.documents.map(({ code }) => code)).toEqual(
    problemCodes.filter((code) => statusOf(code) !== undefined),
  )
})

test.each(vectors.documents)('$code goes out and comes back', ({ code, document }) => {
  const problem = decodeProblem(document, document.status)
  expect(problem.code).toBe(code)
  expect(problem.message).toBe(document.detail)
  expect(problem.status).toBe(document.status)
  expect(encodeProblem(problem)).toEqual(document)
})

test('extensions come back, and cannot stand in for the members of the standard', () => {
  expect(decodeProblem(vectors.withExtensions, 409).extensions.missing).toEqual(
    vectors.withExtensions.missing,
  )
  const forged = new Problem('not-found', 'x', {
    extensions: { type: 'y', status: 200, title: 'z', detail: 'w' },
  })
  expect(encodeProblem(forged)).toMatchObject({
    type: 'urn:chunkdav:problem:not-found',
    status: 404,
    detail: 'x',
  })
})

test.each(local)('%s never travels', (code) => {
  expect(encodeProblem(new Problem(code, 'x'))).toMatchObject({
    type: 'urn:chunkdav:problem:internal-error',
    status: 500,
  })
  // Who sends it all the same is no authority on what happens on this machine.
  expect(decodeProblem({ type: `urn:chunkdav:problem:${code}` }, 400).code).toBe('invalid-request')
})

describe('a type that this version does not know', () => {
  test.each([
    [400, 'invalid-request'],
    [401, 'unauthenticated'],
    [403, 'forbidden'],
    [404, 'not-found'],
    [405, 'method-not-allowed'],
    [413, 'body-too-large'],
    [429, 'too-many-requests'],
    [499, 'invalid-request'],
    [500, 'internal-error'],
    [502, 'unavailable'],
    [503, 'unavailable'],
    [504, 'unavailable'],
    [507, 'insufficient-storage'],
    [599, 'internal-error'],
  ])('becomes what the status %i suggests: %s', (status, code) => {
    for (const type of [
      'urn:chunkdav:problem:of-the-future',
      'about:blank',
      'urn:chunkdav:problem:toString',
      undefined,
      7,
    ]) {
      expect(decodeProblem({ type, title: 'T', status }, status).code).toBe(code)
    }
  })

  test.each([[undefined], [null], ['<html>'], [7], [[]]])(
    'and so does %o, which is no document',
    (document) => {
      const problem = decodeProblem(document, 502)
      expect(problem.code).toBe('unavailable')
      expect(problem.message).toBe('status 502')
    },
  )
})

test('a problem is an Error that keeps its cause', () => {
  const cause = new Error('below')
  const problem = new Problem('unavailable', 'x', { cause })
  expect(problem).toBeInstanceOf(Error)
  expect(problem.cause).toBe(cause)
  expect(isProblem(problem)).toBe(true)
  expect(isProblem(problem, 'unavailable')).toBe(true)
  expect(isProblem(problem, 'not-found')).toBe(false)
  expect(isProblem(cause)).toBe(false)
  expect('cause' in new Problem('unavailable', 'x')).toBe(false)
})
