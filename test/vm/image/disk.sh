#!/bin/bash
# root -> root.img (sparse ext4, no journal: every boot uses a throw-away overlay).
set -euo pipefail
. "$(dirname "$0")/lib.sh"
truncate -s 3G "$OUT/root.img"
mke2fs -q -t ext4 -O ^has_journal,^metadata_csum -E lazy_itable_init=1,nodiscard -m 0 -L root -d "$OUT/root" "$OUT/root.img"
step "root.img: $(du -h "$OUT/root.img" | cut -f1) used"
