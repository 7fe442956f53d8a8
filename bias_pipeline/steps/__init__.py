"""Steps of the bias pipeline, in the order of the data.

===================  ==========================================  ================  ==================================
step                 reads                                       computes          writes (below the output folder)
===================  ==========================================  ================  ==================================
step1_select_frames  bias frames below --basepath                groups by T       nothing
step2_make_masters   the frames of step 1                        screen, combine   bias_grouped_by_temp/, read_noise/
step3_fit_model      masters                                     a + b T, errors   bias_model/
step4_synthesize     bias_model/                                 bias at any T     bias_masks_by_temp/
step5_evaluate       masters, bias_model/                        residuals         evaluation/
step6_report         run.json and the products above             pictures          figures/, report.html
===================  ==========================================  ================  ==================================

Each step is ``run(config, context)``; from step 2 on they meet through FITS files only, so that any mode can start
at any step in a fresh process.
"""
