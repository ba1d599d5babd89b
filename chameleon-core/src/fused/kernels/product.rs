//! Matrix products into uninitialised memory.
//!
//! The same kernels as flex calls, but flex clears the result first and copies it once more. Calls are cut and
//! ordered as flex does, so that a product is the same to the last bit in both.
#![expect(
    unsafe_code,
    reason = "the product is called with pointers; their ranges are checked here, in one place"
)]

use gemm::{Parallelism, gemm};

/// Numbers in memory as rows and columns.
#[derive(Debug, Clone, Copy)]
pub(in crate::fused) struct Matrix<'a> {
    /// From the first number on.
    pub(in crate::fused) values: &'a [f32],
    /// Rows and columns.
    pub(in crate::fused) shape: [usize; 2],
    /// How far apart rows and columns lie.
    pub(in crate::fused) strides: [isize; 2],
}

/// Two matrices to be multiplied.
#[derive(Debug, Clone, Copy)]
pub(in crate::fused) struct Product<'a> {
    lhs: Matrix<'a>,
    rhs: Matrix<'a>,
}

/// Multiplications below which one thread is faster.
const PARALLEL_FROM: usize = 192 * 192 * 192;

impl<'a> Matrix<'a> {
    /// Rows one after the other.
    pub(in crate::fused) fn from_rows(values: &'a [f32], num_columns: usize) -> Self {
        Self {
            values,
            shape: [values.len() / num_columns.max(1), num_columns],
            strides: [num_columns.cast_signed(), 1],
        }
    }

    pub(in crate::fused) fn transpose(self) -> Self {
        Self {
            values: self.values,
            shape: [self.shape[1], self.shape[0]],
            strides: [self.strides[1], self.strides[0]],
        }
    }

    /// Some columns.
    ///
    /// # Panics
    ///
    /// When they reach past the last one.
    pub(in crate::fused) fn columns(self, columns: std::ops::Range<usize>) -> Self {
        assert!(columns.end <= self.shape[1], "columns of a matrix");
        let first = columns.start.cast_signed() * self.strides[1];
        let first = usize::try_from(first).expect("columns do not run backwards");
        Self {
            values: self.values.get(first..).unwrap_or_default(),
            shape: [self.shape[0], columns.len()],
            strides: self.strides,
        }
    }

    /// Whether every element of the matrix is within its memory.
    fn is_inside(&self) -> bool {
        let last = |axis: usize| {
            let steps = self.shape[axis].saturating_sub(1).cast_signed();
            steps.checked_mul(self.strides[axis])
        };
        let is_empty = self.shape.contains(&0);
        let furthest = last(0).zip(last(1)).and_then(|(a, b)| a.checked_add(b));
        let forward = self.strides.iter().all(|&stride| stride >= 0);
        is_empty
            || (forward
                && furthest.is_some_and(|furthest| furthest < self.values.len().cast_signed()))
    }
}

impl<'a> Product<'a> {
    /// # Panics
    ///
    /// When the inner sizes differ, or a matrix reaches past its memory.
    pub(in crate::fused) fn of(lhs: Matrix<'a>, rhs: Matrix<'a>) -> Self {
        assert_eq!(lhs.shape[1], rhs.shape[0], "inner sizes");
        assert!(lhs.is_inside() && rhs.is_inside(), "within the memory");
        Self { lhs, rhs }
    }

    pub(in crate::fused) fn num_rows(&self) -> usize {
        self.lhs.shape[0]
    }

    pub(in crate::fused) fn num_columns(&self) -> usize {
        self.rhs.shape[1]
    }

    /// The product, row by row.
    pub(in crate::fused) fn compute(&self) -> Vec<f32> {
        self.compute_on(self.threads())
    }

    /// The same on this thread alone, for callers that have given every thread its part.
    pub(in crate::fused) fn compute_alone(&self) -> Vec<f32> {
        self.compute_on(Parallelism::None)
    }

    fn compute_on(&self, threads: Parallelism) -> Vec<f32> {
        let len = self.num_rows() * self.num_columns();
        let mut values = Vec::with_capacity(len);
        // SAFETY: `values` has room for as many elements as `write` writes, and it writes every one of them without
        // reading it before.
        unsafe {
            self.write(values.as_mut_ptr(), false, threads);
            values.set_len(len);
        }
        values
    }

    /// Adds the product to `sum`, `[rows, columns]`.
    ///
    /// # Panics
    ///
    /// When `sum` has another size.
    pub(in crate::fused) fn add_to(&self, sum: &mut [f32]) {
        self.add_on(sum, self.threads());
    }

    /// The same on this thread alone.
    pub(in crate::fused) fn add_alone_to(&self, sum: &mut [f32]) {
        self.add_on(sum, Parallelism::None);
    }

    fn add_on(&self, sum: &mut [f32], threads: Parallelism) {
        assert_eq!(
            sum.len(),
            self.num_rows() * self.num_columns(),
            "size of the sum"
        );
        // SAFETY: as many elements as are written, all of them initialised.
        unsafe { self.write(sum.as_mut_ptr(), true, threads) }
    }

    fn threads(&self) -> Parallelism {
        if self.num_rows() * self.lhs.shape[1] * self.num_columns() >= PARALLEL_FROM {
            Parallelism::Rayon(0)
        } else {
            Parallelism::None
        }
    }

    /// Writes `[rows, columns]` elements, or adds to them.
    ///
    /// # Safety
    ///
    /// `values` points to as many elements, which are initialised if they are added to.
    unsafe fn write(&self, values: *mut f32, add: bool, threads: Parallelism) {
        let Self { lhs, rhs } = self;
        let ([num_rows, inner], num_columns) = (lhs.shape, rhs.shape[1]);
        // SAFETY: both operands lie within their slices, as `of` has checked, and the caller vouches for the result.
        unsafe {
            gemm(
                num_rows,
                num_columns,
                inner,
                values,
                1,
                num_columns.cast_signed(),
                add,
                lhs.values.as_ptr(),
                lhs.strides[1],
                lhs.strides[0],
                rhs.values.as_ptr(),
                rhs.strides[1],
                rhs.strides[0],
                1.0,
                1.0,
                false,
                false,
                false,
                threads,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(values: &[f32], shape: [usize; 2]) -> Matrix<'_> {
        Matrix {
            values,
            shape,
            strides: [shape[1].cast_signed(), 1],
        }
    }

    #[test]
    #[should_panic(expected = "within the memory")]
    fn a_matrix_that_reaches_past_its_memory_is_refused() {
        let values = [0.0; 6];
        let _ = Product::of(matrix(&values[1..], [2, 3]), matrix(&values, [3, 2]));
    }

    #[test]
    fn a_product_of_nothing_is_zero() {
        let (lhs, rhs) = (matrix(&[], [2, 0]), matrix(&[], [0, 3]));
        assert_eq!(Product::of(lhs, rhs).compute(), [0.0; 6]);
    }
}
