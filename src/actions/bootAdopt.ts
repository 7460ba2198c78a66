/**
 * What the initramfs bound comes into the books by the first pass after it, since none can be written before the real
 * root. From then on it is as if that pass had bound it: `unbind` gives it back.
 */
import { applyBooks, type BookChange, newBinding, readBook } from '../binding/books.ts';
import { hostDrivers } from '../binding/drivers/driverChoice.ts';
import { observe } from '../binding/observe.ts';
import { changing } from '../binding/session.ts';
import { readReport } from '../boot/report.ts';
import { HostdevError } from '../errors.ts';
import { scanInventory } from '../pci/inventory.ts';
import { warning } from '../text/warning.ts';
import { BOOT } from './bind.ts';
import { eachMs, type Pass } from './bootPass.ts';
import { NO_DRIVER } from './park.ts';

/**
 * Takes each device into the books that the initramfs brought to where it still is. Raises nothing: what could not be
 * taken is on its driver all the same, and is told.
 */
export async function adoptEarly(pass: Pass): Promise<void> {
  const { host } = pass;
  const report = readReport(host);
  // A later pass finds what people and guests have made of the devices since.
  if (report === null || report.early === null || report.at !== null) return;
  const wanted = new Map(report.early.devices.flatMap((d) => (d.done && d.address ? [[d.address, d.driver]] : [])));
  const foretold = hostDrivers(host);
  const inventory = scanInventory(host);
  for (const [address, driver] of wanted) {
    if (!inventory.byAddress.has(address)) continue;
    try {
      const limits = { ...pass.options, deadlineMs: eachMs(pass) };
      await changing(host, inventory, { addresses: [address] }, limits, async ({ work, inventory: now }) => {
        const device = now.byAddress.get(address);
        const seen = await observe(work, address);
        const after = driver === NO_DRIVER ? { driver: null, override: NO_DRIVER } : { driver, override: driver };
        if (device === undefined || seen?.driver !== after.driver || seen.override !== after.override) return;
        if (readBook(host, address) !== null) return;
        const before = { driver: foretold(host.read(host.device(address, 'modalias'))), override: null };
        const binding = newBinding(host, address, device.iommu_group, BOOT, before, after);
        const change: BookChange = { address, before: null, after: { ...binding, any_host: true } };
        applyBooks(host, [change], 'after');
        pass.changed = true;
      });
    } catch (e) {
      if (!(e instanceof HostdevError)) throw e;
      pass.warnings.push(warning('unfinished', `${address} is not in the books: ${e.message}`, address));
    }
  }
}
