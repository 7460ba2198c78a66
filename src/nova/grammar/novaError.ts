/**
 * Nova's exceptions as errors of ours. Nova tells its mistakes apart by exception class, operators search for those
 * names, and contract 7 prints them: so an error about a spec, an alias, a request or a claim carries both names.
 */
import { type ErrorCode, type ErrorExtra, HostdevError } from '../../errors.ts';

/**
 * Nova's exception class (nova/exception.py, 33.0.0) and our code for it. What is a bare Python error there is named so
 * here.
 */
export const NOVA_CODES = {
  PciConfigInvalidSpec: 'HOSTDEV_SPEC',
  PciDeviceWrongAddressFormat: 'HOSTDEV_SPEC_ADDRESS',
  PciDeviceInvalidDeviceName: 'HOSTDEV_SPEC_DEVNAME',
  PciDeviceRemoteManagedNotPresent: 'HOSTDEV_SPEC_REMOTE_MANAGED',
  PciDeviceInvalidPFRemoteManaged: 'HOSTDEV_SPEC_REMOTE_MANAGED',
  PciDeviceNotFoundById: 'HOSTDEV_SPEC_REMOTE_MANAGED',
  PciInvalidAlias: 'HOSTDEV_ALIAS',
  PciRequestAliasNotDefined: 'HOSTDEV_ALIAS_ABSENT',
  // Nova lets int() and the unpacking of a pair fail: an HTTP 500.
  ValueError: 'HOSTDEV_REQUEST',
  InvalidPCINUMAAffinity: 'HOSTDEV_REQUEST',
  PciDeviceRequestFailed: 'HOSTDEV_NO_CAPACITY',
  PciDevicePoolEmpty: 'HOSTDEV_NO_CAPACITY',
  PciDeviceInvalidStatus: 'HOSTDEV_DEVICE_STATE',
  PciDeviceInvalidOwner: 'HOSTDEV_DEVICE_STATE',
  PciDeviceVFInvalidStatus: 'HOSTDEV_DEVICE_STATE',
  PciDevicePFInvalidStatus: 'HOSTDEV_DEVICE_STATE',
  NoSuchInstance: 'HOSTDEV_CONSUMER_ABSENT',
  PlacementPciException: 'HOSTDEV_PLACEMENT',
  PlacementPciDependentDeviceException: 'HOSTDEV_PLACEMENT_DEPENDENT',
  PlacementPciMixedResourceClassException: 'HOSTDEV_PLACEMENT_MIXED',
  PlacementPciMixedTraitsException: 'HOSTDEV_PLACEMENT_MIXED',
} as const satisfies Record<string, ErrorCode>;

export type NovaClass = keyof typeof NOVA_CODES;

/** An error that Nova would raise too; `key` is the offending key of a spec or alias, null when it is the whole. */
export class NovaError extends HostdevError {
  readonly novaClass: NovaClass;
  readonly key: string | null;

  constructor(novaClass: NovaClass, message: string, extra: ErrorExtra & { key?: string | null } = {}) {
    super(NOVA_CODES[novaClass], message, extra);
    this.novaClass = novaClass;
    this.key = extra.key ?? null;
  }

  /** As contract 7 prints it. */
  view(): ErrorView {
    return { class: this.novaClass, code: this.code, message: this.message };
  }
}

export type ErrorView = { class: string; code: string; message: string };

/** Something worth saying that is no error; `key` as in {@link NovaError}, `suggestion` what was probably meant. */
export type Note = { text: string; key: string | null; suggestion: string | null };

export const note = (text: string, key: string | null = null, suggestion: string | null = null): Note => ({
  text,
  key,
  suggestion,
});
