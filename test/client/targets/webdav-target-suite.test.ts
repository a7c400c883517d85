import { afterAll, beforeAll, describe, it } from 'vitest'
import { WebDavClient } from '../../../client/targets/webdav-client.ts'
import { WebDavTarget } from '../../../client/targets/webdav-target.ts'
import { parseWebDavUrl } from '../../../client/targets/webdav-url.ts'
import { type FileTargetSubject, fileTargetSuite } from '../../conformance/file-target-suite.ts'
import type { DavServer } from '../../support/dav-servers.ts'
import { allDavPrograms } from '../../support/webdav.ts'

for (const program of allDavPrograms) {
  describe.skipIf(program.missing !== undefined)(`${program.name}${program.missing ?? ''}`, () => {
    let server: DavServer
    let places = 0

    // One server serves all tests; each has a folder of its own, that its target makes.
    beforeAll(async () => {
      server = await program.start()
    })
    afterAll(() => server.stop())

    const create = async (): Promise<FileTargetSubject> => {
      const place = `place-${++places}`
      const location = parseWebDavUrl(`webdav+${server.url}/${place}`)
      return {
        open: async () => new WebDavTarget(new WebDavClient(location), 'laptop'),
        read: async (checkpoint, path) => {
          const answer = await fetch(`${server.url}/${place}/laptop/${checkpoint}/files/${path}`)
          const body = Buffer.from(await answer.arrayBuffer())
          return answer.status === 200 ? body : undefined
        },
        dispose: async () => {},
      }
    }
    fileTargetSuite({ describe, it }, { create })
  })
}
