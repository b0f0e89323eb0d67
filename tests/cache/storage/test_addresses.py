"""Files at addresses: of several writers of one file, one makes it."""

from concurrent.futures import ThreadPoolExecutor

from teachclip.cache.storage.locations import location_of


def test_of_several_writers_of_one_file_one_makes_it(bucket) -> None:
    file = location_of(f"s3://{bucket.name}/folder") / "file"
    contents = [bytes([number]) * 100_000 for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(file.create, contents))
    assert sum(made) == 1
    assert file.read() == contents[made.index(True)]


def test_what_is_there_is_not_created_again(bucket) -> None:
    file = location_of(f"s3://{bucket.name}/folder") / "file"
    file.write(b"first")
    assert not file.create(b"second")
    assert file.read() == b"first"
