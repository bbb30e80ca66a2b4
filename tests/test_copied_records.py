"A folder of records with copies in it (a backup, 'copy of', two machines merged): a training counts once."
import shutil
from pathlib import Path
import pytest
from imgstudy.records.find import sound_records
from imgstudy.records.record import read_records
from imgstudy.stats.seeds import records_table

committed = Path(__file__).parent.parent/'report/records'
three = sorted(committed.glob('digits-*-s[0-9]-*'))[:1] + sorted(committed.glob('cifar10-lenet*-s[0-9]-*'))[:2]


@pytest.mark.parametrize('names', [['backup 0', 'backup 1', 'backup 2'], ['AAA'], ['zzz (copy)', 'Kopie von x'], ['1', '2']])
def test_a_copy_is_left_out_and_named(tmp_path, names):
    assert len(three) == 3
    for p in three: shutil.copytree(p, tmp_path/p.name)
    for name in names: shutil.copytree(three[0], tmp_path/name)
    found = read_records(tmp_path, copies=(copies := []))
    assert [r.path.name for r in found] == sorted(p.name for p in three)
    assert len(copies) == len(names) and all(any(c.startswith(f'{n} is left out') for c in copies) for n in names)
    assert len(records_table(found)) == 3
    kept, messages = sound_records(tmp_path)
    assert len(kept) == 3 and not [m for m in messages if not any(m.startswith(n) for n in names)]


def test_a_record_alone_counts_under_any_name(tmp_path):
    shutil.copytree(three[0], tmp_path/'renamed')
    assert len(read_records(tmp_path, copies=(copies := []))) == 1 and not copies
