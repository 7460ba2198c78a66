/** Which files a configuration is, and reading them. */
import { basename, join } from 'node:path';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { type Config, emptyConfig } from './config.ts';
import { addNovaFiles } from './novaConf.ts';
import { fatal, remark, sortFindings } from './place.ts';
import { kindOf, namesIn, ownFiles, type ReadText, readText } from './readText.ts';

/** More than nova.conf with every option explained (500 KiB). */
const MAX_NOVA = 4 * 1024 * 1024;
/** The TOML parser needs a second for so much. */
const MAX_TOML = 1024 * 1024;

/**
 * Reads the configuration: the files and folders of `--config`, in their order, or etc/hostdev below the root. A file
 * whose name ends in `.toml` is ours, any other is Nova's; of a folder, `hostdev.toml` with `conf.d/*.toml`, or else
 * `*.toml`, or else `*.conf`, each sorted as oslo sorts them. Of both kinds, Nova's go first, so that a file of ours
 * adds the settings that Nova's has no place for. What is wrong in the files is in `findings`; a file that cannot be
 * read raises HOSTDEV_FILE_ABSENT or HOSTDEV_NOT_PERMITTED, or is a finding too where one bad file shall not keep the
 * others from counting (`tolerant`).
 */
export async function loadConfig(host: Host, given: readonly string[], tolerant = false): Promise<Config> {
  const files =
    given.length === 0 ? ownFiles(host, host.absolute(host.config)) : given.flatMap((f) => filesOf(host, f));
  const isOurs = (file: string): boolean => file.endsWith('.toml');
  const nova = files.filter((f) => !isOurs(f));
  const toml = files.filter(isOurs);
  const config = emptyConfig(
    files.length === 0 ? 'none' : nova.length === 0 ? 'hostdev' : toml.length === 0 ? 'nova' : 'both',
  );
  const read = (list: readonly string[], max: number): { file: string; text: string }[] =>
    list.flatMap((file) => {
      config.files.push(file);
      const got = tolerant ? readable(host, file, max) : readText(host, file, max);
      if ('text' in got) return [{ file, text: got.text }];
      config.findings.push(got.finding);
      return [];
    });
  if (nova.length > 0) addNovaFiles(config, read(nova, MAX_NOVA));
  if (toml.length > 0) (await import('./hostdevToml.ts')).addTomlFiles(config, read(toml, MAX_TOML));
  for (const path of given) {
    const beside = `${path}.d`;
    if (
      basename(path) === 'nova.conf' &&
      !given.includes(beside) &&
      !given.includes(`${beside}/`) &&
      kindOf(host, beside) === 'folder'
    )
      config.findings.push(
        remark({ file: path, line: 0, column: 0, key: '' }, `nova-compute also reads ${beside} by default`, {
          hint: `Add --config ${beside}.`,
        }),
      );
  }
  sortFindings(config.findings, config.files);
  return config;
}

/** A file that cannot be read is a finding as one that cannot be understood. */
function readable(host: Host, file: string, max: number): ReadText {
  try {
    return readText(host, file, max);
  } catch (e) {
    if (!(e instanceof HostdevError)) throw e;
    return { finding: fatal({ file, line: 0, column: 0, key: '' }, `cannot be read: ${e.message}`, { hint: e.hint }) };
  }
}

function filesOf(host: Host, path: string): string[] {
  if (kindOf(host, path) !== 'folder') return [path];
  const own = ownFiles(host, path);
  if (own.length > 0) return own;
  for (const suffix of ['.toml', '.conf']) {
    const names = namesIn(host, path, suffix);
    if (names.length > 0) return names.map((n) => join(path, n));
  }
  throw new HostdevError('HOSTDEV_FILE_ABSENT', `--config ${path}: there is no configuration in this folder`, {
    hint: 'It should hold hostdev.toml, *.toml or *.conf.',
  });
}
