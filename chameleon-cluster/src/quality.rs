//! How good a clustering is: sizes, balance, inertia, silhouette, and agreement with labels.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use chameleon_core::RunSeed;
use rand::seq::index;
use rayon::prelude::*;

use crate::{
    assign::CHUNK_ROWS,
    error::ClusterError,
    points::{self, PointSet},
};

/// How many points each cluster has, and how evenly.
#[derive(Debug, Clone, PartialEq)]
pub struct SizeSummary {
    /// Points of each cluster.
    pub sizes: Vec<usize>,
    /// Points of the smallest cluster.
    pub smallest: usize,
    /// Points of the largest cluster.
    pub largest: usize,
    /// Clusters without points.
    pub num_empty: usize,
    /// Entropy of the sizes over that of equal sizes: 1 when even, 0 when one cluster has all.
    pub balance: f64,
}

/// Counts the points of each cluster.
///
/// # Errors
///
/// When `num_clusters` is zero or an assignment is out of range.
pub fn cluster_sizes(
    assignments: &[usize],
    num_clusters: usize,
) -> Result<SizeSummary, ClusterError> {
    check_range(assignments, num_clusters)?;
    let mut sizes = vec![0; num_clusters];
    for &cluster_idx in assignments {
        sizes[cluster_idx] += 1;
    }
    let (smallest, largest) = (sizes.iter().copied().min(), sizes.iter().copied().max());
    let balance = if num_clusters > 1 && !assignments.is_empty() {
        entropy(sizes.iter().copied()) / (num_clusters as f64).ln()
    } else {
        1.0
    };
    Ok(SizeSummary {
        smallest: smallest.unwrap_or(0),
        largest: largest.unwrap_or(0),
        num_empty: sizes.iter().filter(|&&size| size == 0).count(),
        balance,
        sizes,
    })
}

/// Sum of squared distances of the points to the centroids they are assigned to, in f64.
///
/// # Shapes
///
/// - points: `[points, hidden]`
/// - centroids: `[clusters, hidden]`
///
/// # Errors
///
/// When points or centroids are empty, not finite or of different width, or the assignments are
/// not one valid cluster for each point.
pub fn inertia(
    points: &Tensor<2>,
    centroids: &Tensor<2>,
    assignments: &[usize],
) -> Result<f64, ClusterError> {
    let rows = points::read_centroids(centroids)?;
    let [num_clusters, expected] = centroids.dims();
    let points = PointSet::new(points)?;
    if points.hidden_size() != expected {
        return Err(ClusterError::HiddenSizeMismatch {
            found: points.hidden_size(),
            expected,
        });
    }
    check_one_for_each(assignments, points.num_points())?;
    check_range(assignments, num_clusters)?;
    let rows = points.frame().enter(rows);
    let ours = points.square_distances(&rows, assignments).iter().sum();
    Ok(points.frame().square_distance(ours))
}

/// The sample of a silhouette.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SilhouetteSample {
    /// Number of points whose silhouette is computed; all points if there are fewer.
    pub max_points: usize,
    /// Number of members that represent each cluster; smaller clusters are used completely.
    pub max_members: usize,
}

impl Default for SilhouetteSample {
    /// 1,000 points against at most 64 members of each cluster: at 230 clusters some 15 million
    /// distances, however large the data.
    fn default() -> Self {
        Self {
            max_points: 1_000,
            max_members: 64,
        }
    }
}

/// The mean silhouette of a sample of points: 1 when each is far nearer to its own cluster than to
/// the next, 0 between clusters, negative in the wrong one.
///
/// The mean distance of a sampled point to a cluster is estimated from `max_members` random members
/// (never the point itself), so cost and memory are bounded by the sample. With a sample as large
/// as the data the figure is exact. A point alone in its cluster counts as 0, as in scikit-learn.
///
/// # Shapes
///
/// - points: `[points, hidden]`
///
/// # Errors
///
/// When points are missing or not finite, assignments are not one for each point, a bound of the
/// sample is zero, or all points are in one cluster, for which no silhouette is defined.
pub fn silhouette(
    points: &Tensor<2>,
    assignments: &[usize],
    sample: SilhouetteSample,
    seed: RunSeed,
) -> Result<f64, ClusterError> {
    for (name, value) in [
        ("max_points", sample.max_points),
        ("max_members", sample.max_members),
    ] {
        if value == 0 {
            return Err(ClusterError::ZeroSetting { name });
        }
    }
    let points = PointSet::new(points)?;
    check_one_for_each(assignments, points.num_points())?;
    let mut clusters: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (row_idx, &cluster_idx) in assignments.iter().enumerate() {
        clusters.entry(cluster_idx).or_default().push(row_idx);
    }
    if clusters.len() < 2 {
        return Err(ClusterError::SingleCluster);
    }
    let mut rng = seed.stream("silhouette");
    let mut pick = |rows: &[usize], amount: usize| -> Vec<usize> {
        if rows.len() <= amount {
            return rows.to_vec();
        }
        let mut picked = index::sample(&mut rng, rows.len(), amount).into_vec();
        picked.sort_unstable();
        picked.into_iter().map(|idx| rows[idx]).collect()
    };
    let all_rows: Vec<usize> = (0..points.num_points()).collect();
    let sampled = pick(&all_rows, sample.max_points);
    let members: Vec<ClusterMembers> = clusters
        .iter()
        .map(|(&cluster_idx, rows)| ClusterMembers {
            cluster_idx,
            size: rows.len(),
            rows: pick(rows, sample.max_members),
        })
        .collect();
    Ok(mean_silhouette(&points, assignments, &sampled, &members))
}

/// A cluster and the points that represent it.
struct ClusterMembers {
    cluster_idx: usize,
    size: usize,
    rows: Vec<usize>,
}

fn mean_silhouette(
    points: &PointSet,
    assignments: &[usize],
    sampled: &[usize],
    members: &[ClusterMembers],
) -> f64 {
    let square_norms = points.square_norms();
    let references: Vec<usize> = members
        .iter()
        .flat_map(|cluster| cluster.rows.iter().copied())
        .collect();
    let on_device =
        |rows: &[usize]| points::upload(points.gather(rows), points.hidden_size(), points.device());
    let transposed = on_device(&references).transpose(); // [hidden, references]
    let mut sum = 0.0;
    // The products of a chunk with all references are the largest allocation.
    for chunk in sampled.chunks(CHUNK_ROWS / 4) {
        let products = on_device(chunk).matmul(transposed.clone()); // [chunk, references]
        let products: Vec<f32> = products
            .into_data()
            .try_into_vec()
            .expect("points are uploaded as f32");
        let silhouettes: Vec<f64> = products
            .par_chunks(references.len())
            .zip(chunk)
            .map(|(products, &row_idx)| {
                let distance = |reference_idx: usize, other: usize| {
                    let product = f64::from(products[reference_idx]);
                    (square_norms[row_idx] + square_norms[other] - 2.0 * product)
                        .max(0.0)
                        .sqrt()
                };
                silhouette_of(row_idx, assignments[row_idx], members, distance)
            })
            .collect();
        sum += silhouettes.iter().sum::<f64>();
    }
    sum / sampled.len() as f64
}

/// `distance` takes the position among all references and the row there.
fn silhouette_of(
    row_idx: usize,
    own_cluster: usize,
    members: &[ClusterMembers],
    distance: impl Fn(usize, usize) -> f64,
) -> f64 {
    let (mut own, mut nearest_other) = (0.0, f64::INFINITY);
    let mut offset = 0;
    for cluster in members {
        let is_own = cluster.cluster_idx == own_cluster;
        if is_own && cluster.size == 1 {
            return 0.0;
        }
        let others = cluster
            .rows
            .iter()
            .enumerate()
            .filter(|&(_, &other)| other != row_idx);
        let (count, sum) = others.fold((0_usize, 0.0), |(count, sum), (idx, &other)| {
            (count + 1, sum + distance(offset + idx, other))
        });
        offset += cluster.rows.len();
        let mean = sum / count.max(1) as f64;
        if is_own {
            own = mean;
        } else {
            nearest_other = nearest_other.min(mean);
        }
    }
    let larger = own.max(nearest_other);
    if larger > 0.0 {
        (nearest_other - own) / larger
    } else {
        0.0
    }
}

/// How clusters and labels of the same rows agree; all three are 1 when they are the same groups.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LabelAgreement {
    /// Part of the rows that have the most frequent label of their cluster. Grows with the number
    /// of clusters.
    pub purity: f64,
    /// Mutual information over the mean of both entropies.
    pub normalized_mutual_information: f64,
    /// Pairs grouped alike, corrected for chance: 0 for random groups, may be negative.
    pub adjusted_rand: f64,
}

/// Compares clusters with labels; any ordered type may be the label.
///
/// # Errors
///
/// When there are no rows or the lists differ in length.
pub fn label_agreement<L: Ord>(
    assignments: &[usize],
    labels: &[L],
) -> Result<LabelAgreement, ClusterError> {
    if labels.len() != assignments.len() {
        return Err(ClusterError::LengthMismatch {
            name: "labels",
            found: labels.len(),
            expected: assignments.len(),
        });
    }
    if assignments.is_empty() {
        return Err(ClusterError::NoPoints { shape: [0, 0] });
    }
    let mut of_cluster: BTreeMap<usize, BTreeMap<&L, usize>> = BTreeMap::new();
    let mut of_label: BTreeMap<&L, usize> = BTreeMap::new();
    for (&cluster_idx, label) in assignments.iter().zip(labels) {
        *of_cluster
            .entry(cluster_idx)
            .or_default()
            .entry(label)
            .or_default() += 1;
        *of_label.entry(label).or_default() += 1;
    }
    let cells: Vec<usize> = of_cluster
        .values()
        .flat_map(BTreeMap::values)
        .copied()
        .collect();
    let clusters: Vec<usize> = of_cluster
        .values()
        .map(|labels| labels.values().sum())
        .collect();
    let labels: Vec<usize> = of_label.into_values().collect();
    let num_majority: usize = of_cluster
        .values()
        .filter_map(|labels| labels.values().max())
        .sum();
    Ok(LabelAgreement {
        purity: num_majority as f64 / assignments.len() as f64,
        normalized_mutual_information: normalized_mutual_information(&cells, &clusters, &labels),
        adjusted_rand: adjusted_rand(&cells, &clusters, &labels),
    })
}

fn normalized_mutual_information(cells: &[usize], clusters: &[usize], labels: &[usize]) -> f64 {
    let entropy_of = |sizes: &[usize]| entropy(sizes.iter().copied());
    let (cluster_entropy, label_entropy) = (entropy_of(clusters), entropy_of(labels));
    if clusters.len() == 1 && labels.len() == 1 {
        return 1.0;
    }
    let information = cluster_entropy + label_entropy - entropy_of(cells);
    (2.0 * information / (cluster_entropy + label_entropy)).clamp(0.0, 1.0)
}

fn adjusted_rand(cells: &[usize], clusters: &[usize], labels: &[usize]) -> f64 {
    let pairs = |size: usize| size as f64 * (size as f64 - 1.0) / 2.0;
    let pairs_in = |sizes: &[usize]| sizes.iter().map(|&size| pairs(size)).sum::<f64>();
    let all = pairs(clusters.iter().sum());
    let (together, in_clusters, in_labels) =
        (pairs_in(cells), pairs_in(clusters), pairs_in(labels));
    let expected = if all > 0.0 {
        in_clusters * in_labels / all
    } else {
        0.0
    };
    let most = f64::midpoint(in_clusters, in_labels);
    if (most - expected).abs() < f64::EPSILON * most.max(1.0) {
        // All rows in one group on both sides, or each alone on both.
        return 1.0;
    }
    (together - expected) / (most - expected)
}

/// Of the distribution given by the sizes, in nats.
fn entropy(sizes: impl Iterator<Item = usize> + Clone) -> f64 {
    let total = sizes.clone().sum::<usize>() as f64;
    sizes
        .filter(|&size| size > 0)
        .map(|size| size as f64 / total)
        .map(|part| -part * part.ln())
        .sum()
}

fn check_one_for_each(assignments: &[usize], num_points: usize) -> Result<(), ClusterError> {
    if assignments.len() == num_points {
        return Ok(());
    }
    Err(ClusterError::LengthMismatch {
        name: "assignments",
        found: assignments.len(),
        expected: num_points,
    })
}

fn check_range(assignments: &[usize], num_clusters: usize) -> Result<(), ClusterError> {
    if num_clusters == 0 {
        return Err(ClusterError::ZeroSetting {
            name: "num_clusters",
        });
    }
    match assignments
        .iter()
        .position(|&cluster_idx| cluster_idx >= num_clusters)
    {
        None => Ok(()),
        Some(row_idx) => Err(ClusterError::AssignmentOutOfRange {
            row_idx,
            found: assignments[row_idx],
            num_clusters,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn balance_is_one_for_equal_sizes_and_zero_for_one_cluster() {
        let even = cluster_sizes(&[0, 1, 2, 2, 1, 0], 3).unwrap();
        assert!((even.balance - 1.0).abs() < 1e-12);
        let lopsided = cluster_sizes(&[1, 1, 1], 3).unwrap();
        assert!(lopsided.balance.abs() < 1e-12);
        assert_eq!(lopsided.sizes, [0, 3, 0]);
        assert_eq!(
            (lopsided.smallest, lopsided.largest, lopsided.num_empty),
            (0, 3, 2)
        );
    }

    #[test]
    fn renaming_clusters_keeps_the_agreement_perfect() {
        let agreement = label_agreement(&[7, 7, 2, 2, 5], &["a", "a", "b", "b", "c"]).unwrap();
        assert!((agreement.purity - 1.0).abs() < 1e-12);
        assert!((agreement.normalized_mutual_information - 1.0).abs() < 1e-12);
        assert!((agreement.adjusted_rand - 1.0).abs() < 1e-12);
    }

    #[test]
    fn one_group_on_both_sides_agrees() {
        let agreement = label_agreement(&[0, 0, 0], &[1, 1, 1]).unwrap();
        assert!((agreement.normalized_mutual_information - 1.0).abs() < 1e-12);
        assert!((agreement.adjusted_rand - 1.0).abs() < 1e-12);
    }

    #[test]
    fn one_cluster_says_nothing_about_two_labels() {
        let agreement = label_agreement(&[0, 0, 0, 0], &["a", "b", "a", "b"]).unwrap();
        assert!((agreement.purity - 0.5).abs() < 1e-12);
        assert!(agreement.normalized_mutual_information.abs() < 1e-12);
        assert!(agreement.adjusted_rand.abs() < 1e-12);
    }
}
