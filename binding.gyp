{
  'target_defaults': {
    'cflags': ['-Wall', '-Wextra', '-Werror', '-O2', '-fvisibility=hidden'],
    'cflags_cc!': ['-std=gnu++17', '-fno-exceptions', '-fno-rtti'],
    'cflags_cc': ['-std=c++20', '-fexceptions'],
    # What node-gyp adds for every addon breaks our -Wextra.
    'cflags!': ['-Wno-unused-parameter'],
  },
  'targets': [
    {
      'target_name': 'hostdev',
      'sources': [
        'native/addon.cc',
        'native/root_fs.cc',
        'native/scan.cc',
        'native/helper.cc',
        'native/frame.cc',
        'native/holders.cc',
        'native/libvirt_addon.cc',
        'native/libvirt_api.cc',
        'native/libvirt_calls.cc',
        'native/libvirt_client.cc',
        'native/lock.cc',
        'native/system_log.cc',
      ],
      'include_dirs': ["<!(node -p \"require('node-addon-api').include_dir\")"],
      'defines': ['NAPI_VERSION=8', 'NODE_ADDON_API_CPP_EXCEPTIONS_ALL', 'NODE_ADDON_API_DISABLE_DEPRECATED'],
      'ldflags': ['-Wl,--exclude-libs,ALL'],
    },
    {
      'target_name': 'hostdev-native',
      'type': 'executable',
      'sources': ['native/main.cc', 'native/writer.cc', 'native/boot.cc', 'native/boot_cmdline.cc', 'native/boot_judge.cc', 'native/boot_move.cc', 'native/boot_report.cc', 'native/boot_sysfs.cc', 'native/boot_table.cc', 'native/frame.cc', 'native/netlink.cc', 'native/hook.cc', 'native/hook_child.cc', 'native/hook_stdin.cc', 'native/hook_xml.cc', 'native/hook_conf.cc', 'native/state_dir.cc', 'native/root_fs.cc'],
      # It lies in the initramfs of hosts with a small /boot, and starting it is most of its time.
      'cflags!': ['-O2', '-O3'],
      'cflags': ['-Os', '-ffunction-sections', '-fdata-sections'],
      'cflags_cc': ['-fno-rtti'],
      'ldflags': ['-static', '-s', '-Wl,--gc-sections'],
      # node-gyp links -lnode into executables where it finds one.
      'libraries!': ['-lnode'],
    },
  ],
}
