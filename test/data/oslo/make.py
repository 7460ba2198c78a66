#!/usr/bin/env python3
"""What oslo.config itself makes of files: writes cases.json beside this script.

Run with python3-oslo.config (Debian 1:9.0.0-3) on PYTHONPATH. Each case is a list of files' texts, in order, and what oslo answers for Nova's PCI options (as registered in
nova/conf/pci.py), or that it refuses.
"""
import json, os, random, tempfile, warnings
warnings.simplefilter('ignore')
import logging
logging.disable(logging.CRITICAL)
from oslo_config import cfg

HERE = os.path.dirname(os.path.abspath(__file__))

def opts():
    pci = [
        cfg.MultiStrOpt('alias', default=[], deprecated_name='pci_alias', deprecated_group='DEFAULT'),
        cfg.MultiStrOpt('device_spec', default=[], deprecated_opts=[
            cfg.DeprecatedOpt('passthrough_whitelist', group='pci'),
            cfg.DeprecatedOpt('pci_passthrough_whitelist', group='DEFAULT')]),
        cfg.BoolOpt('report_in_placement', default=False),
    ]
    return {'pci': pci, 'filter_scheduler': [cfg.BoolOpt('pci_in_placement', default=False)],
            None: [cfg.StrOpt('my_nic', default='UNSET'), cfg.StrOpt('host', default='UNSET')]}

def ask(texts):
    with tempfile.TemporaryDirectory() as d:
        names = []
        for i, t in enumerate(texts):
            n = os.path.join(d, '%02d.conf' % i)
            with open(n, 'w', newline='') as f:
                f.write(t)
            names.append(n)
        conf = cfg.ConfigOpts()
        for group, os_ in opts().items():
            conf.register_opts(os_, group=group)
        try:
            conf(['--config-file=' + n for n in names], default_config_files=[], default_config_dirs=[])
            return {'device_spec': conf.pci.device_spec, 'alias': conf.pci.alias,
                    'report_in_placement': conf.pci.report_in_placement,
                    'pci_in_placement': conf.filter_scheduler.pci_in_placement}
        except Exception as e:
            return {'error': type(e).__name__}

HAND = [
    ['[pci]\ndevice_spec = { "address": "0000:41:00.0" }\n'],
    ['[pci]\ndevice_spec={}\ndevice_spec : {"a": 1}\nalias={"name":"x"}\n'],
    ['[PCI]\ndevice_spec = one\n[pci]\ndevice_spec = two\n[Pci]\ndevice_spec=three\n'],
    ['[pci]\ndevice_spec = {"vendor_id": "8086",\n  "product_id": "10ca"}\n'],
    ['[pci]\ndevice_spec = {\n\t"vendor_id": "8086"\n  }\n\n  late\n'],
    ['[pci]\ndevice_spec = {\n  "vendor_id": "8086"\n}\n'],
    ['[pci]\ndevice_spec = a\n# c\n  b\n'],
    ['[pci]\ndevice_spec = a\n  # c\n  ; d\n  b\n'],
    ['[pci]\n; c\n#c\ndevice_spec = a ; not a comment # nor this\n'],
    ['[pci]\ndevice_spec = "quoted"\ndevice_spec = \'single\'\ndevice_spec = "half\ndevice_spec = "mixed\'\ndevice_spec = "\ndevice_spec = ""\n'],
    ['[pci]\ndevice_spec = "a"\n  "b"\n'],
    ['[pci]\ndevice_spec = "a\n  b"\n'],
    ['[DEFAULT]\npci_passthrough_whitelist = old\npci_alias = oa\n[pci]\ndevice_spec = new\npassthrough_whitelist = middle\nalias = na\n'],
    ['[DEFAULT]\npci_passthrough_whitelist = o1\n[pci]\ndevice_spec = n1\n', '[DEFAULT]\npci_passthrough_whitelist = o2\n[pci]\ndevice_spec = n2\n'],
    ['[default]\npci_passthrough_whitelist = old\n'],
    ['[pci]\npci_passthrough_whitelist = old\npci_alias = x\n'],
    ['[pci]\ndevice-spec = dash\nDevice_Spec = case\n'],
    ['[DEFAULT]\nmy_nic = 0000:41:00.0\n[pci]\ndevice_spec = {"address": "$my_nic"}\ndevice_spec = ${my_nic}x\ndevice_spec = $$my_nic\ndevice_spec = \\$my_nic\ndevice_spec = \\\\$my_nic\ndevice_spec = 0a$\ndevice_spec = 0a$"\ndevice_spec = $ {my_nic} ${ my_nic} $1 ${1}\n'],
    ['[DEFAULT]\nmy_nic = 1\n[pci]\ndevice_spec = $MY_NIC\n'],
    ['[DEFAULT]\nmy_nic = 0000:41:00.0\n[pci]\ndevice_spec = $DEFAULT.my_nic\n'],
    ['[DEFAULT]\nmy_nic = x$host\nhost = h\n[pci]\ndevice_spec = $my_nic\n'],
    ['[pci]\ndevice_spec = $nothing_of_the_kind\n'],
    ['[pci]\nreport_in_placement = yes\nreport_in_placement = OFF\n[filter_scheduler]\npci_in_placement = 1\n'],
    ['[pci]\nreport_in_placement = t\n'], ['[pci]\nreport_in_placement =\n'], ['[pci]\nreport_in_placement = "true"\n'],
    ['[pci]\nreport_in_placement = true\n', '[pci]\nreport_in_placement = false\n'],
    ['device_spec = x\n'], ['  device_spec = x\n'], ['[pci\ndevice_spec = x\n'], ['[]\n'], ['[ ]\n'], ['[pci] # c\ndevice_spec=x\n'],
    ['[pci]\n= x\n'], ['[pci]\nnothing\n'], ['[pci]\r\ndevice_spec = a\r\n  b\r\n'], ['[pci]\rdevice_spec = a\r'],
    ['[pci]\ndevice_spec =\n'], ['[pci]\ndevice_spec =\n  a\n'], ['[pci]\ndevice_spec\t=\ta\t\n'],
    ['\ufeff[pci]\ndevice_spec = a\n'], ['[pci ]\ndevice_spec=a\n'], ['[pci]\n\u00a0device_spec = a\n'],
    ['[pci]\ndevice_spec = a\n \n  b\n'], ['[pci]\ndevice_spec = a\n[x]\n  b\n'], ['[pci]\ndevice_spec = a', '[pci]\ndevice_spec = b'],
    ['[pci]\nurl: a=b\ndevice_spec: a=b\ndevice_spec = a:b\n'],
]

PIECES = ['[pci]', '[DEFAULT]', '[PCI]', '[x]', '[', '[filter_scheduler]', 'device_spec = a', 'device_spec: "q"', "device_spec='q'", 'device_spec=$host',
          'device_spec = $$x \\$y', 'passthrough_whitelist = w', 'pci_passthrough_whitelist = v', 'alias = {', '  }', '}', '\t, "b"', '', '', '# c', '; c', '  # c',
          'host = h', 'pci_alias=p', 'report_in_placement = true', 'report_in_placement = 0', 'nothing', '   ', ' x=y', 'pci_in_placement = on', 'device_spec=', 'a:b=c']

def fuzz(n):
    r = random.Random(4)
    good = bad = 0
    while good + bad < n:
        texts = []
        for _ in range(r.choice([1, 1, 2, 3])):
            lines = [r.choice(PIECES) for _ in range(r.randrange(1, 10))]
            if r.random() < 0.8:
                lines.insert(0, '[pci]')
            texts.append(r.choice(['\n', '\n', '\r\n']).join(lines) + r.choice(['', '\n']))
        # hostdev does not know Nova's defaults.
        if 'UNSET' in json.dumps(ask(texts)):
            continue
        # Half of them files that oslo takes.
        if 'error' in ask(texts):
            if bad >= n // 2:
                continue
            bad += 1
        else:
            good += 1
        yield texts

cases = [{'texts': t, 'answer': ask(t)} for t in HAND + list(fuzz(400))]
with open(os.path.join(HERE, 'cases.json'), 'w') as f:
    f.write('[\n' + ',\n'.join(json.dumps(c) for c in cases) + '\n]\n')
print(len(cases), sum('error' in c['answer'] for c in cases))
