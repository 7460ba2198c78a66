/** Which files a configuration is, and reading them. */
import { basename, join } from 'node:path';
import { HostdevError } from '../errors.ts';
import type { Host } from '../host/host.ts';
import { type Config, emptyConfig } from './config.ts';
import { addNovaFiles } from './novaConf.ts';
import { remark } from './place.ts';
import { kindOf, namesIn, ownFiles, readText } from './readText.ts';

/** More than nova.conf with every option explained (500 KiB). */
const MAX_NOVA = 4 * 1024 * 1024;
/** The TOML parser needs a second for so much. */
const MAX_TOML = 1024 * 1024;

/**
 * Reads the configuration: the files and folders of `--config`, in their order, or etc/hostdev below the root. A file whose name ends in `.toml` is ours, any other is Nova's;
 * of a folder, `hostdev.toml` with `conf.d/*.toml`, or else `*.toml`, or else `*.conf`, each sorted as oslo sorts them. What is wrong in the files is in `findings`; a file that
 * cannot be read raises HOSTDEV_FILE_ABSENT or HOSTDEV_NOT_PERMITTED, files of both kinds HOSTDEV_USAGE.
 */
export async function loadConfig(host: Host, given: readonly string[]): Promise<Config> {
  const files = given.length === 0 ? ownFiles(host.configDir) : given.flatMap(filesOf);
  const toml = files.filter((f) => f.endsWith('.toml'));
  if (toml.length > 0 && toml.length < files.length)
    throw new HostdevError(
      'HOSTDEV_USAGE',
      `--config: ${toml[0]} is hostdev's and ${files.find((f) => !f.endsWith('.toml'))} Nova's`,
      {
        hint: 'Give files of one kind: those of hostdev end in .toml.',
      },
    );
  const config = emptyConfig(files.length === 0 ? 'none' : toml.length > 0 ? 'hostdev' : 'nova');
  const texts: { file: string; text: string }[] = [];
  for (const file of files) {
    const read = readText(file, toml.length > 0 ? MAX_TOML : MAX_NOVA);
    if ('finding' in read) config.findings.push(read.finding);
    else texts.push({ file, text: read.text });
    config.files.push(file);
  }
  if (config.form === 'hostdev') (await import('./hostdevToml.ts')).addTomlFiles(config, texts);
  if (config.form === 'nova') addNovaFiles(config, texts);
  for (const path of given) {
    const beside = `${path}.d`;
    if (
      basename(path) === 'nova.conf' &&
      !given.includes(beside) &&
      !given.includes(`${beside}/`) &&
      kindOf(beside) === 'folder'
    )
      config.findings.push(
        remark({ file: path, line: 0, column: 0, key: '' }, `nova-compute also reads ${beside} by default`, {
          hint: `Add --config ${beside}.`,
        }),
      );
  }
  config.findings.sort(
    (a, b) => files.indexOf(a.file) - files.indexOf(b.file) || a.line - b.line || a.column - b.column,
  );
  return config;
}

function filesOf(path: string): string[] {
  if (kindOf(path) !== 'folder') return [path];
  const own = ownFiles(path);
  if (own.length > 0) return own;
  for (const suffix of ['.toml', '.conf']) {
    const names = namesIn(path, suffix);
    if (names.length > 0) return names.map((n) => join(path, n));
  }
  throw new HostdevError('HOSTDEV_FILE_ABSENT', `--config ${path}: there is no configuration in this folder`, {
    hint: 'It should hold hostdev.toml, *.toml or *.conf.',
  });
}
