/** The published suites: give them a test runner and something to test. */
export {
  type ChunkStoreSubject,
  type ChunkStoreSuiteOptions,
  chunkStoreSuite,
  type SuiteRunner,
} from './chunk-store-suite.ts'
export {
  type CollectableSubject,
  type CollectableSuiteOptions,
  collectableSuite,
} from './collectable-suite.ts'
export {
  type FileTargetSubject,
  type FileTargetSuiteOptions,
  fileTargetSuite,
} from './file-target-suite.ts'
export { type SourceSubject, type SourceSuiteOptions, sourceSuite } from './source-suite.ts'
export { type TargetSubject, type TargetSuiteOptions, targetSuite } from './target-suite.ts'
