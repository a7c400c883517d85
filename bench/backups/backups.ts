/** Whole backups beside restic, borg, casync and rclone. */
import type { BenchOptions, RawSection, Section } from '../section.ts'
import { measure } from './measure.ts'
import type { Samples } from './samples.ts'
import { samplesOfRaw, sectionOf } from './section-of-samples.ts'

export { expectedSeconds } from './measure.ts'

/** With `raw`, of which `render` makes the same section again. */
export async function run(options: BenchOptions): Promise<RawSection> {
  const section = (raw: Samples): RawSection => ({ ...sectionOf(raw), raw })
  const before = options.before === undefined ? undefined : samplesOfRaw(options.before)
  return section(await measure(options, before, (all) => options.save(section(all))))
}

export function render(raw: unknown): Section {
  return sectionOf(samplesOfRaw(raw))
}
