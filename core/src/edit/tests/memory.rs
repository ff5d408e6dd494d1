//! Models in less memory than they take.

use super::*;

#[test]
fn a_model_in_little_memory_gives_the_same() {
    let folder = Folder::of("zero");
    let expected = folder.pipeline().edit(&requests()[1], &options()).unwrap();
    let error = folder.load(&f32().max_memory(60 << 20)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    assert!(error.to_string().contains("max_memory"), "{error}");
    // Room for some blocks, so that some stay and others are read again.
    let least: u64 = error.message().split(' ').rev().nth(1).unwrap().parse().unwrap();
    let pipeline = folder.load(&f32().max_memory((least + 4) * 1_000_000)).unwrap();
    for _ in 0..2 {
        let found = pipeline.edit(&requests()[1], &options()).unwrap();
        assert_eq!(found[0].image, expected[0].image);
    }
}

#[test]
fn what_there_is_no_room_for_fails_alone() {
    if !crate::kernels::are_exact() {
        return;
    }
    let folder = Folder::of("zero");
    let options = options().n(2);
    let expected = folder.pipeline().edit_batch(&requests(), &options, &Control::new()).unwrap();
    // Every amount of memory from too little to enough for all, in small steps: whatever is made is
    // what it is with all memory, and more memory makes more.
    let mut counts = Vec::new();
    let error = folder.load(&f32().max_memory(1)).unwrap_err();
    let least: u64 = error.message().split(' ').rev().nth(1).unwrap().parse().unwrap();
    for memory in ((least - 1) * 1_000_000..(least + 5) * 1_000_000).step_by(100_000) {
        let Ok(pipeline) = folder.load(&f32().max_memory(memory)) else {
            assert!(counts.is_empty(), "{memory} bytes");
            continue;
        };
        let made = pipeline.edit_batch(&requests(), &options, &Control::new()).unwrap();
        for (i, (made, expected)) in made.iter().zip(&expected).enumerate() {
            match made {
                Ok(made) => assert_eq!(made.image, expected.as_ref().unwrap().image),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::OutOfMemory);
                    let request = format!("request={}", i / 2);
                    assert!(error.to_string().contains(&request), "{error}");
                }
            }
        }
        counts.push(made.iter().filter(|made| made.is_ok()).count());
    }
    assert!(counts.is_sorted() && counts.last() == Some(&6), "{counts:?}");
    assert!(counts.contains(&0) && counts.contains(&4), "{counts:?}");
}
