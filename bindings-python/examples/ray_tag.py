"""Tags a dataset of many files with Ray Data, and goes on where a run was killed.

    python ray_tag.py SHARDS TAGS --model wd-vit-tagger-v3 --actors 4

SHARDS is a folder of Parquet files with pictures (the bytes of image files) in one column. For each, TAGS gets a Parquet
file of the same name: the columns of `tagbrush.ray.TagImages` and the other ones of the shard. A file appears under its
name when it is whole, so what a killed run leaves to do are the shards that have none. On a cluster, both are folders that
all machines see. Needs `ray[data]`.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import ray
import tagbrush
from pyarrow import parquet
from tagbrush.ray import TagImages

COLUMNS = {
    "tag_index": pa.list_(pa.int32()),
    "tag_score": pa.list_(pa.float32()),
    "rating": pa.string(),
    "error": pa.string(),
}


class TagShards:
    """Loads the model once in its worker, and writes the tags of one shard after the other."""

    def __init__(self, tags, model, column, batch, threads):
        if threads:
            tagbrush.set_threads(threads)
        self.tag = TagImages(model, column=column)
        self.tags, self.column, self.batch = Path(tags), column, batch

    def __call__(self, rows):
        counts = [self.shard(Path(shard)) for shard in rows["shard"]]
        pictures, failed = np.array(counts).T
        return {"shard": rows["shard"], "pictures": pictures, "failed": failed}

    def shard(self, path):
        """Tags a shard, a batch of pictures at a time. How many there are, and how many of them failed."""
        unfinished = self.tags / f"{path.name}.{os.getpid()}.tmp"
        pictures = failed = 0
        with parquet.ParquetFile(path) as source:
            others = [name for name in source.schema_arrow.names if name != self.column]
            schema = pa.schema([source.schema_arrow.field(name) for name in others])
            for name, kind in COLUMNS.items():
                schema = schema.append(pa.field(name, kind))
            with parquet.ParquetWriter(unfinished, schema) as writer:
                for batch in source.iter_batches(self.batch):
                    found = self.tag({self.column: batch[self.column].to_numpy(zero_copy_only=False)})
                    columns = [pa.array(list(found[name]), kind) for name, kind in COLUMNS.items()]
                    columns = [*(batch[name] for name in others), *columns]
                    writer.write_batch(pa.record_batch(columns, schema=schema))
                    pictures += len(batch)
                    failed += sum(error != "" for error in found["error"])
        unfinished.replace(self.tags / path.name)
        return pictures, failed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shards", type=Path)
    parser.add_argument("tags", type=Path)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--column", default="bytes", help="the one with the pictures")
    parser.add_argument("--actors", type=int, default=1, help="processes, each with a model of its own: one a machine")
    parser.add_argument("--threads", type=int, help="of each of them; as many as its machine has cores unless set")
    parser.add_argument("--batch", type=int, default=64, help="pictures at a time")
    args = parser.parse_args()

    args.tags.mkdir(parents=True, exist_ok=True)
    for unfinished in args.tags.glob("*.tmp"):
        unfinished.unlink()  # Of a run that was killed.
    shards = sorted(args.shards.resolve().glob("*.parquet"))
    todo = [shard for shard in shards if not (args.tags / shard.name).exists()]
    print(f"{len(shards)} shards, {len(shards) - len(todo)} of them done before", flush=True)
    if not todo:
        return
    ray.init()
    rows = ray.data.from_items([{"shard": str(shard)} for shard in todo], override_num_blocks=len(todo))
    done = rows.map_batches(
        TagShards,
        fn_constructor_args=[str(args.tags.resolve()), args.model, args.column, args.batch, args.threads],
        batch_size=1,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(size=args.actors),
        num_cpus=args.threads or 1,
    )
    for row in done.iter_rows():
        print(f"{Path(row['shard']).name}: {row['pictures']} pictures, {row['failed']} failed", flush=True)


if __name__ == "__main__":
    main()
