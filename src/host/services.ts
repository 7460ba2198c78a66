/**
 * Processes that hold devices for a living, and how each is asked to let go. The kernel cuts a command's name to 15
 * characters (TASK_COMM_LEN).
 */

const DISPLAY = 'stop the graphical session: systemctl isolate multi-user.target';
const SOUND =
  'stop the sound server in the session that runs it: systemctl --user stop pipewire.socket pipewire wireplumber';

const SERVICES: [RegExp, string][] = [
  [/^nvidia-persiste/, 'systemctl stop nvidia-persistenced'],
  [/^nvidia-powerd$/, 'systemctl stop nvidia-powerd'],
  [/^(nv-hostengine|dcgm)/, 'systemctl stop nvidia-dcgm'],
  [/^(Xorg|Xwayland|X|gnome-shell|kwin_\w*|plasmashell|weston|sway|gdm\S*|sddm\S*|lightdm)$/, DISPLAY],
  [/^systemd-logind$/, DISPLAY],
  [/^plymouthd$/, 'plymouth quit'],
  [/^(pipewire\S*|wireplumber)$/, SOUND],
  [
    /^pulseaudio$/,
    'stop the sound server in the session that runs it: systemctl --user stop pulseaudio.socket pulseaudio',
  ],
  [/^(qemu-\S*|kvm|CPU \d+\/KVM)$/, 'stop its guest, or take the device from it: virsh detach-device'],
  [/^(cloud-hyperviso|firecracker)/, 'stop its guest'],
  [/^(smartd|multipathd|mdadm|lvmpolld|dmeventd|chronyd|ptp4l|irqbalance|thermald|ModemManager|iwd|openvpn)$/, ''],
  [/^wpa_supplicant$/, ''],
  [/^(ovs-vswitchd)$/, 'systemctl stop openvswitch-switch (or openvswitch)'],
];

/** What ends a process's hold, for a hint: "systemctl stop smartd"; null for a command that is nobody's service. */
export function stopAdvice(command: string): string | null {
  const found = SERVICES.find(([re]) => re.test(command));
  if (found === undefined) return null;
  return found[1] === '' ? `systemctl stop ${command}` : found[1];
}
