import { access, readFile } from 'node:fs/promises'

/** The path of a file at the package's root, from the sources and from dist/ alike. */
export async function packageFile(name: string): Promise<URL> {
  const beside = new URL(`../${name}`, import.meta.url)
  try {
    await access(beside)
    return beside
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    return new URL(`../../${name}`, import.meta.url)
  }
}

/** The package's version. */
export async function packageVersion(): Promise<string> {
  const { version } = JSON.parse(await readFile(await packageFile('package.json'), 'utf8')) as {
    version: string
  }
  return version
}
