/**
 * The sample hostdev.toml that the package ships: every table and key of the schema, commented out, with what it means.
 * Without its `#` it is a configuration that holds.
 */
import type { Section } from '../../../src/config/keyRule.ts';
import { keysOf, SCHEMA, type SectionName } from '../../../src/config/schema.ts';

const identity = (address: string, port: string, product: string): Record<string, string> => ({
  address: `"0000:${address}"`,
  path: `"pci0000:20/${port}/00.0"`,
  vendor_id: '"8086"',
  product_id: `"${product}"`,
  subsystem_vendor_id: '"8086"',
  subsystem_device_id: '"0000"',
});

/** Values that go together, a table each. */
const EXAMPLES: Record<SectionName, Record<string, string>[]> = {
  device_spec: [
    {
      vendor_id: '"8086"',
      product_id: '"10ca"',
      address: '"0000:21:*.*"',
      physical_network: '"physnet1"',
      trusted: '"true"',
      managed: 'true',
      live_migratable: 'true',
    },
    { devname: '"eth4"', remote_managed: 'false' },
    {
      address: '"0000:41:00.0"',
      resource_class: '"CUSTOM_GPU"',
      traits: '"CUSTOM_BIG, CUSTOM_BLUE"',
      one_time_use: 'true',
    },
  ],
  alias: [
    {
      name: '"nic"',
      vendor_id: '"8086"',
      product_id: '"10ca"',
      capability_type: '"pci"',
      device_type: '"type-VF"',
      numa_policy: '"preferred"',
      live_migratable: '"true"',
    },
    { name: '"gpu"', resource_class: '"CUSTOM_GPU"', traits: '"CUSTOM_BIG"' },
  ],
  pci: [
    {
      report_in_placement: 'true',
      pci_in_placement: 'true',
      trait_blanks: '"trim"',
      starlingx_default_aliases: 'false',
      hypervisor_hostname: '"compute1"',
    },
  ],
  hook: [{ unmanaged: '"bind"', prepare_seconds: '30', start_seconds: '5', other_seconds: '2' }],
  allow: [{ device: '"0000:01:00.0"', guard: '"display"', domain: '"win11"' }],
  device: [
    {
      ...identity('23:00.0', '05.0', '10d3'),
      serial: '"00-1b-21-ff-ff-3c-4d-5e"',
      mac: '"00:1b:21:3c:4d:5e"',
      driver: '"vfio"',
      group: '"endpoints"',
      allow: '["network"]',
    },
    { ...identity('24:00.0', '06.0', 'a808'), nvme_serial: '"S4EVNX0M123456"', driver: '"vfio"' },
    { ...identity('21:10.2', '04.0', '10c9'), vf: '1', driver: '"vfio-pci"' },
  ],
  pf: [
    {
      ...identity('25:00.0', '07.0', '10c9'),
      serial: '"00-1b-21-ff-ff-3c-4d-5f"',
      nvme_serial: '"S4EVNX0M123457"',
      mac: '"00:1b:21:3c:4d:5f"',
      vfs: '4',
      for: '"vfio"',
      range: '[{ vfs = "0", driver = "host" }]',
      allow: '["vfs"]',
    },
    { ...identity('21:00.0', '04.0', '10c9'), vfs: '8', for: '"netdev"' },
  ],
  'pf.range': [{ vfs: '"0-3"', driver: '"vfio"', vgpu_type: '592' }],
};

const comment = (text: string): string => {
  const lines: string[] = [];
  for (const word of text.split(' ')) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + word.length < 98) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(`# ${word}`);
  }
  return `${lines.join('\n')}\n`;
};

function tables(name: SectionName): string {
  const s: Section = SCHEMA[name];
  const told = new Set<string>();
  return EXAMPLES[name]
    .map((example, i) => {
      const keys = Object.entries(example).map(([key, value]) => {
        const rule = keysOf(name)[key];
        const words =
          rule === undefined || told.has(key)
            ? ''
            : comment(
                `${key}: ${rule.rule}. ${rule.required ? 'It must be given.' : `When left out: ${rule.otherwise}.`}`,
              );
        told.add(key);
        return `${words}#${key} = ${value}\n`;
      });
      return `${i === 0 ? comment(s.text) : ''}#${s.list ? `[[${name}]]` : `[${name}]`}\n${keys.join('')}`;
    })
    .join('\n');
}

export const sample = (): string =>
  `${comment("A sample of hostdev's configuration, for /etc/hostdev/hostdev.toml. All of it is commented out: take the # from the lines that you want. Explained in hostdev.toml(5); 'hostdev config check' tells every mistake. Made from src/config/schema.ts by test/unit/config/sample.ts.")}\n${(Object.keys(SCHEMA) as SectionName[]).map(tables).join('\n')}`;

/** With every setting in force. */
export const uncommented = (text: string): string => text.replace(/^#(?=[[a-z])/gm, '');
