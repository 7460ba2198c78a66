/**
 * The rules of the vIOMMU, one table: what libvirt's schema, parser and validators refuse, and what QEMU refuses at start. docs/reference/viommu.md is generated from
 * it, and test/data/viommu holds it against what real libvirts said.
 */
import type { Rule } from '../rules/rules.ts';
import { VIOMMU_DEFINE_RULES } from './defineRules.ts';
import { VIOMMU_START_RULES } from './startRules.ts';

export const VIOMMU_RULES: readonly Rule[] = [...VIOMMU_DEFINE_RULES, ...VIOMMU_START_RULES];
