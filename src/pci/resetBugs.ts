/**
 * Devices that a reset of their bus does not bring back: known, and with a module from outside the kernel that does it.
 * The ids are those of the families that the project vendor-reset names (github.com/gnif/vendor-reset, README.md and
 * src/device-db.h); what it has of graphics inside processors is tried by few, and not here.
 */

/** Device ids of AMD (1002), in hex. */
const FAMILIES: Readonly<Record<string, string>> = {
  'Polaris 10': '67c0 67c1 67c2 67c4 67c7 67c8 67c9 67ca 67cc 67cf 67d0 67df 6fdf',
  'Polaris 11': '67e0 67e1 67e3 67e7 67e8 67e9 67eb 67ef 67ff',
  'Polaris 12': '6980 6981 6985 6986 6987 6995 6997 699f',
  'Vega 10': '6860 6861 6862 6863 6864 6867 6868 6869 686a 686b 686c 686d 686e 686f 687f',
  'Vega 20': '66a0 66a1 66a2 66a3 66a4 66a7 66af',
  'Navi 10': '7310 7312 7318 7319 731a 731b 731e 731f',
  'Navi 12': '7360 7362',
  'Navi 14': '7340 7341 7347 734f',
};

const FAMILY_OF = new Map(
  Object.entries(FAMILIES).flatMap(([family, ids]) => ids.split(' ').map((id) => [id, `AMD ${family}`] as const)),
);

/** The family of a device with the reset bug, e.g. "AMD Navi 10"; null for every other device. */
export const resetBug = (vendorId: string | null, productId: string | null): string | null =>
  vendorId === '1002' ? (FAMILY_OF.get(productId ?? '') ?? null) : null;
