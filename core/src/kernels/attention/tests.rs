use super::super::testing::{assert_close, values};
use super::{forward, reference};

#[test]
fn agrees_with_the_reference_over_odd_shapes() {
    for (b, h, n, m, d) in
        [(1, 1, 1, 1, 1), (2, 3, 5, 7, 4), (1, 2, 130, 130, 32), (3, 1, 64, 65, 8), (0, 2, 3, 3, 4)]
    {
        let q = (values(&[b, h, n, d], 1) * 3.0).unwrap();
        let (k, v) = (values(&[b, h, m, d], 2), values(&[b, h, m, d], 3));
        let found = forward(&q, &k, &v, 0.5, None).unwrap();
        if b == 0 {
            assert_eq!(found.dims(), &[0, n, h, d]);
            continue;
        }
        let expected = reference::forward(&q, &k, &v, 0.5, None).unwrap();
        assert_close(&found, &expected, 2e-6, &format!("{:?}", (b, h, n, m, d)));
    }
}

#[test]
fn windows_share_their_biases() {
    let (q, k) = (values(&[6, 2, 9, 4], 1), values(&[6, 2, 9, 4], 2));
    let v = values(&[6, 2, 9, 4], 3);
    for w in [1, 2, 3, 6] {
        let bias = (values(&[w, 2, 9, 9], 4) * 10.0).unwrap();
        let found = forward(&q, &k, &v, 1.0, Some(&bias)).unwrap();
        let expected = reference::forward(&q, &k, &v, 1.0, Some(&bias)).unwrap();
        assert_close(&found, &expected, 2e-6, &format!("{w} windows"));
    }
    assert!(forward(&q, &k, &v, 1.0, Some(&values(&[4, 2, 9, 9], 4))).is_err());
}

#[test]
fn takes_permuted_views_of_one_packed_tensor() {
    // (b, n, 3, h, d), as one matrix product for q, k and v leaves it.
    let packed = values(&[2, 70, 3, 4, 8], 5).permute((2, 0, 3, 1, 4)).unwrap();
    let [q, k, v] = [0, 1, 2].map(|i| packed.get(i).unwrap());
    let found = forward(&q, &k, &v, 0.35, None).unwrap();
    let expected = reference::forward(&q, &k, &v, 0.35, None).unwrap();
    assert_close(&found, &expected, 2e-6, "packed");
    assert!(forward(&q, &k.narrow(1, 0, 2).unwrap(), &v, 0.35, None).is_err());
}
