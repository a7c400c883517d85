/** Whole backups beside restic, borg, casync and rclone. */
import type { BenchOptions, Section } from '../section.ts'
import { measure } from './measure.ts'
import { samplesOfRaw, sectionOf } from './section-of-samples.ts'

/** With `raw`, of which `render` makes the same section again. */
export async function run(options: BenchOptions): Promise<Section & { readonly raw: unknown }> {
  const raw = await measure(options)
  return { ...sectionOf(raw), raw }
}

export function render(raw: unknown): Section {
  return sectionOf(samplesOfRaw(raw))
}
